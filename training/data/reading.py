"""Annotations and a folder of videos in, a data set with its report out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from training.data.activitynet import read_activitynet
from training.data.annotation import Annotation, Annotations
from training.data.errors import VideoUnreadable
from training.data.example import Dataset, Example, Finding, Format, Report
from training.data.folder import VideoFolder, same_bytes
from training.data.jsonl import read_jsonl
from training.data.videoxum import read_videoxum

_READERS: dict[Format, Callable[[Sequence[Path]], Annotations]] = {
    Format.VIDEOXUM: read_videoxum,
    Format.ACTIVITYNET: read_activitynet,
    Format.JSONL: read_jsonl,
}
_LENGTH_SLACK = 0.1  # of the annotated length, and two seconds at least: containers and annotators round
_LENGTH_SLACK_S = 2.0

Probe = Callable[[Path], float]
"""Decodes a file as training would and gives its length in seconds. Raises VideoUnreadable."""


def read_dataset(format: Format, annotations: Sequence[Path], videos: Path) -> Dataset:
    """The pairs of annotations and video files. Names and sizes are compared; nothing is decoded.

    Several files of one name are one video if their bytes are equal, and no video if not: which was meant cannot be
    known. Two videos with equal bytes are both kept, and told.

    Raises:
        AnnotationsUnfit: the annotations cannot be read, or are not of the format.
        FolderUnfit: there is no folder of videos.
    """
    read, folder = _READERS[format](annotations), VideoFolder(videos)
    examples: dict[Path, Example] = {}
    missing: list[str] = []
    duplicates = list(read.duplicates)
    named: set[Path] = set()
    for annotation in read.sound:
        files = folder.find(annotation.names)
        named.update(files)
        if not files:
            missing.append(annotation.id)
        elif len(files) > 1 and not _one_video(files):
            several = ", ".join(map(folder.name, files))
            duplicates.append(Finding(annotation.id, f"several different files, none is used: {several}"))
        elif files[0] in examples:
            other = examples[files[0]].id
            duplicates.append(Finding(annotation.id, f"the same file as '{other}': not used"))
        else:
            if len(files) > 1:
                copies = ", ".join(map(folder.name, files[1:]))
                duplicates.append(
                    Finding(annotation.id, f"{folder.name(files[0])} is used, not its copies: {copies}")
                )
            examples[files[0]] = _example(annotation, files[0])
    for first, *others in same_bytes(list(examples)):
        duplicates += [
            Finding(examples[path].id, f"the same bytes as '{examples[first].id}': both are used")
            for path in others
        ]
    report = Report(
        annotated=len(read.sound),
        usable=len(examples),
        missing=tuple(missing),
        duplicates=tuple(duplicates),
        unusable=tuple(read.unusable),
        unnamed=tuple(folder.name(path) for path in folder.files if path not in named),
    )
    return Dataset(format, tuple(examples.values()), report)


def probe_videos(
    dataset: Dataset, probe: Probe, *, threads: int = 1, on_video: Callable[[], None] = lambda: None
) -> Dataset:
    """The data set without the videos that give no frames; those, and the ones of another length, are in its report.

    ``on_video`` is called as each video is done.
    """

    def look(example: Example) -> tuple[Finding | None, Finding | None]:
        try:
            seconds = probe(example.path)
        except VideoUnreadable as error:
            return Finding(example.id, str(error)), None
        finally:
            on_video()
        return None, _other_length(example, seconds)

    with ThreadPoolExecutor(threads) as pool:
        findings = list(pool.map(look, dataset.examples))
    usable = [
        example for example, (unreadable, _) in zip(dataset.examples, findings, strict=True) if not unreadable
    ]
    report = replace(
        dataset.report,
        usable=len(usable),
        unreadable=tuple(unreadable for unreadable, _ in findings if unreadable),
        other_length=tuple(other for _, other in findings if other),
    )
    return replace(dataset, examples=tuple(usable), report=report)


def _one_video(files: Sequence[Path]) -> bool:
    return any(len(group) == len(files) for group in same_bytes(files))


def _example(annotation: Annotation, path: Path) -> Example:
    return Example(annotation.id, path, annotation.references, annotation.duration_s, annotation.key_frames)


def _other_length(example: Example, seconds: float) -> Finding | None:
    said = example.duration_s
    if said is None or abs(seconds - said) <= max(_LENGTH_SLACK_S, _LENGTH_SLACK * said):
        return None
    return Finding(example.id, f"{seconds:.1f} s long, annotated as {said:.1f} s")
