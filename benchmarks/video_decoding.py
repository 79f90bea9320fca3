"""Some frames of a long video: ours, `transformers`' own way, and torchcodec where it is installed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
from transformers.video_utils import load_video

from benchmarks.goals import VIDEO, VIDEO_TORCHCODEC
from benchmarks.long_video import RATE, Film, cut
from benchmarks.plan import QUICK, Plan
from benchmarks.report import Breakdown, Comparison, Row, Share
from benchmarks.side_by_side import Arm, Figures, Metric, take_turns
from benchmarks.spread import Spread
from benchmarks.subject import Subject
from benchmarks.torchcodec_probe import THUMBNAIL
from workers.decode import DecodedVideo, decode
from workers.decode_process import SERVER
from workers.frame_plan import DecodeLimits, FramePlan

FRAMES = Metric("frames", "frames/s")
COUNT = 32
OURS, STOCK = "ViSum", "transformers.video_utils.load_video, pyav"
MODES = ("exact", "approximate")
SAME_LEVELS = 4.0
"""Frames of different decoders are the same below this mean difference: they round YUV to RGB differently."""


@dataclass(frozen=True)
class Size:
    """The video and the repeats of one run; `load_video`, which takes two minutes, is run once."""

    film: Film
    short_s: int
    rounds: int


FULL_SIZE = Size(Film(), short_s=60, rounds=2)
QUICK_SIZE = Size(Film(seconds=8, width=320, height=192, gop=25, part_frames=50), short_s=2, rounds=2)


def video_decoding(subject: Subject, plan: Plan) -> Comparison:
    """The same frames of the same file by every way there is, at the size that the file has."""
    size = QUICK_SIZE if plan == QUICK else FULL_SIZE
    folder = subject.scratch / "decoding"
    folder.mkdir()
    long = size.film.write(folder / "long.mp4")
    with _torchcodec(folder, long) as probe:
        rows, largest = _compare(long, size, probe, folder)
    film = size.film
    return Comparison(
        key="decoding",
        title="Frames of a long video",
        how=f"{COUNT} frames, spread evenly over {film.seconds} s of {film.width}x{film.height} H.264 at {RATE} "
        f"frames/s with a keyframe every {film.gop} frames, in RGB at full size. Ours includes starting and ending "
        "the sandboxed process. `load_video` decodes every frame up to the last wanted one and keeps the wanted ones; "
        "it takes two minutes and is run once, the others in turns, and none of them warms up.",
        rows=tuple(rows),
        breakdowns=(_memory(long, size, folder),),
        notes=(
            f"Between two ways, the frames differ by {largest:.1f} of 255 levels at most, in the mean "
            "of a frame.",
            probe.note,
        ),
    )


def _compare(path: Path, size: Size, probe: _Probe, folder: Path) -> tuple[list[Row], float]:
    """The rows of one film, and the largest mean difference between two ways' frames.

    Raises:
        RuntimeError: two ways gave different frames.
    """
    indices = [i * size.film.seconds * RATE // COUNT for i in range(COUNT)]
    thumbnails: dict[str, np.ndarray] = {}

    def ours(_: int) -> Figures:
        began = time.perf_counter()
        frames = _ours(path, size.film).frames
        seconds = time.perf_counter() - began
        thumbnails[OURS] = frames[:, ::THUMBNAIL, ::THUMBNAIL].copy()
        return {FRAMES: COUNT / seconds}

    def stock(_: int) -> Figures:
        began = time.perf_counter()
        frames, _ = load_video(
            str(path), backend="pyav", sample_indices_fn=lambda metadata, **_: np.array(indices)
        )
        seconds = time.perf_counter() - began
        thumbnails[STOCK] = frames[:, ::THUMBNAIL, ::THUMBNAIL].copy()
        return {FRAMES: COUNT / seconds}

    def codec(mode: str) -> Arm:
        def run(_: int) -> Figures:
            saved = folder / "thumbnails.npy"
            seconds = probe.seconds(path=str(path), indices=indices, mode=mode, thumbnails=str(saved))
            thumbnails[mode] = np.load(saved)
            return {FRAMES: COUNT / seconds}

        return run

    codecs = {f"torchcodec, {m}": codec(m) for m in MODES if probe.there}
    SERVER.warm()
    once = take_turns({OURS: ours, STOCK: stock}, rounds=1, warm_up=0)
    turns = take_turns({OURS: ours, **codecs}, rounds=size.rounds, warm_up=0)
    largest = max(_difference(thumbnails[OURS], other) for other in thumbnails.values())
    if largest > SAME_LEVELS:
        raise RuntimeError(f"the ways gave different frames: they differ by {largest:.1f} levels in the mean")
    rows = [once.row(OURS, STOCK, FRAMES, goal=VIDEO)]
    rows += [turns.row(OURS, arm, FRAMES, model=arm, goal=VIDEO_TORCHCODEC) for arm in codecs]
    return rows, largest


def _ours(path: Path, film: Film, on_frame: object = None) -> DecodedVideo:
    every = FramePlan(
        fps=1000, max_frames=COUNT, size_multiple=8, frame_pixels=film.width * film.height
    )  # as many frames a second as make the cap the number, at the size that they have
    return decode(path, every, DecodeLimits(wall_s=600), on_frame=on_frame)


def _difference(ours: np.ndarray, theirs: np.ndarray) -> float:
    """The largest mean difference of a frame, in levels."""
    return float(np.abs(ours.astype(int) - theirs).mean((1, 2, 3)).max())


def _memory(long: Path, size: Size, folder: Path) -> Breakdown:
    """The decoding process's own, without the frames that it shares with the worker."""
    short = cut(long, folder / "short.mp4", size.short_s)
    films = {f"{size.short_s} s of video": short, f"{size.film.seconds} s of video": long}
    shares = [
        Share(name=name, unit="MiB", value=Spread.of([_peak_mib(path, size.film)]))
        for name, path in films.items()
    ]
    return Breakdown(title="largest memory of the decoding process", shares=tuple(shares))


def _peak_mib(path: Path, film: Film) -> float:
    """The most private memory that was seen when a frame arrived. 0 where there is no /proc."""
    peak = 0

    def look(done: int, total: int) -> None:
        nonlocal peak
        for task in Path(f"/proc/{SERVER.pid}/task").glob("*/children"):
            for child in task.read_text().split():
                with suppress(FileNotFoundError, ProcessLookupError):  # it may have ended meanwhile
                    peak = max(peak, _kib(Path(f"/proc/{child}/status"), "RssAnon"))

    _ours(path, film, look)
    return peak / 1024


def _kib(status: Path, field: str) -> int:
    found = [line for line in status.read_text().splitlines() if line.startswith(f"{field}:")]
    return int(found[0].split()[1]) if found else 0


class _Probe:
    """torchcodec in another process, or the reason why there is none."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        first = self._answer()
        self.there = "version" in first
        said = f"torchcodec {first.get('version')}, on PyAV's FFmpeg {_ffmpeg()}"
        self.note = f"{said}." if self.there else f"torchcodec was not measured: {first.get('missing')}"

    def seconds(self, **asked: object) -> float:
        assert self._process.stdin is not None
        print(json.dumps(asked), file=self._process.stdin, flush=True)
        return self._answer()["seconds"]

    def _answer(self) -> dict:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        return json.loads(line) if line else {"missing": "its process ended"}


@contextmanager
def _torchcodec(folder: Path, video: Path) -> Iterator[_Probe]:
    """It looks for a system's FFmpeg; PyAV's wheel has one, under other names."""
    links, bundled = folder / "ffmpeg", Path(av.__file__).parents[1] / "av.libs"
    links.mkdir()
    for library in bundled.glob("lib[as][vw]*-*.so.*"):
        name, _, version = library.name.partition("-")
        (links / f"{name}.so.{version.partition('.so.')[2].split('.')[0]}").symlink_to(library)
    search = os.pathsep.join([str(links), str(bundled), os.environ.get("LD_LIBRARY_PATH", "")])
    with subprocess.Popen(
        [sys.executable, "-m", "benchmarks.torchcodec_probe", str(video)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=os.environ | {"LD_LIBRARY_PATH": search},
    ) as process:
        yield _Probe(process)


def _ffmpeg() -> str:
    return "libavcodec " + ".".join(str(part) for part in av.library_versions["libavcodec"])
