"""Missing, duplicate, unreadable and unnamed videos."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.training.data.conftest import Videos
from tests.training.data.samples import activitynet_record, write_json, write_lines
from training.data.errors import FolderUnfit
from training.data.example import Dataset, Finding, Format
from training.data.reading import probe_videos, read_dataset
from visum.decoding import prober


def read(videos: Videos, tmp_path: Path, *more: str) -> Dataset:
    lines = [{"video": name, "summary": "Told."} for name in [*videos.clips, *more]]
    path = write_lines(tmp_path / "pairs.jsonl", lines)
    return read_dataset(Format.JSONL, [path], videos.folder)


def test_a_video_without_a_file_is_missing_and_a_file_without_annotation_is_unnamed(
    videos: Videos, tmp_path: Path
) -> None:
    one, *_ = videos.clips
    (videos.folder / f"{one}.mp4").rename(videos.folder / "mistyped.mp4")
    (videos.folder / "notes.txt").write_text("no video")
    report = read(videos, tmp_path, "nowhere").report
    assert report.missing == (one, "nowhere")
    assert report.unnamed == ("mistyped.mp4",)
    assert (report.annotated, report.usable) == (4, 2)


def test_copies_of_one_file_are_told_and_one_is_used(videos: Videos, tmp_path: Path) -> None:
    one, *_ = videos.clips
    (videos.folder / "copies").mkdir()
    shutil.copy(videos.folder / f"{one}.mp4", videos.folder / "copies" / f"{one}.mp4")
    report = read(videos, tmp_path).report
    assert report.duplicates == (Finding(one, f"copies/{one}.mp4 is used, not its copies: {one}.mp4"),)
    assert report.usable == 3


def test_different_files_of_one_name_are_told_and_none_is_used(videos: Videos, tmp_path: Path) -> None:
    one, two, _ = videos.clips
    shutil.copy(videos.folder / f"{two}.mp4", videos.folder / f"{one}.mkv")
    report = read(videos, tmp_path).report
    assert report.duplicates == (
        Finding(one, f"several different files, none is used: {one}.mkv, {one}.mp4"),
    )
    assert report.usable == 2


def test_two_videos_with_equal_bytes_are_told(videos: Videos, tmp_path: Path) -> None:
    one, *_ = videos.clips
    shutil.copy(videos.folder / f"{one}.mp4", videos.folder / "again.mp4")
    report = read(videos, tmp_path, "again").report
    assert report.duplicates == (Finding("again", f"the same bytes as '{one}': both are used"),)
    assert report.usable == 4


def test_a_file_that_cannot_be_read_is_told_when_it_is_decoded_and_not_before(
    videos: Videos, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, *_ = videos.clips
    shutil.copy(videos.folder / f"{one}.mp4", videos.folder / "again.mp4")

    opened = Path.open

    def refused(self: Path, *options: Any, **more: Any) -> Any:
        if self.suffix == ".mp4":
            raise PermissionError(errno.EACCES, "Permission denied")
        return opened(self, *options, **more)

    lines = [{"video": name, "summary": "Told."} for name in ("again", one)]
    annotations = write_lines(tmp_path / "pairs.jsonl", lines)
    monkeypatch.setattr(Path, "open", refused)
    report = probe_videos(read_dataset(Format.JSONL, [annotations], videos.folder), prober()).report
    assert report.duplicates == ()
    assert report.unreadable == (
        Finding("again", "The file cannot be read: Permission denied."),
        Finding(one, "The file cannot be read: Permission denied."),
    )


def test_two_names_of_one_file_are_one_video(videos: Videos, tmp_path: Path) -> None:
    one, *_ = videos.clips
    report = read(videos, tmp_path, f"{one}.mp4").report
    assert report.duplicates == (Finding(f"{one}.mp4", f"the same file as '{one}': not used"),)


def test_a_folder_that_is_none_is_named(rendered: Videos, tmp_path: Path) -> None:
    path = write_lines(tmp_path / "pairs.jsonl", [])
    with pytest.raises(FolderUnfit, match="nowhere is no folder"):
        read_dataset(Format.JSONL, [path], tmp_path / "nowhere")


def test_files_that_give_no_frames_are_told_with_the_decoders_reason(videos: Videos, tmp_path: Path) -> None:
    one, two, _ = videos.clips
    (videos.folder / f"{one}.mp4").write_text("this is no video at all")
    sound = (videos.folder / f"{two}.mp4").read_bytes()
    (videos.folder / f"{two}.mp4").write_bytes(sound[: len(sound) // 2])
    seen: list[None] = []
    dataset = read(videos, tmp_path)
    assert dataset.report.unreadable is None
    probed = probe_videos(dataset, prober(), threads=2, on_video=lambda: seen.append(None))
    assert probed.report.unreadable is not None
    assert [finding.what for finding in probed.report.unreadable] == [one, two]
    assert probed.report.unreadable[0].why == "The file is not a video but a text file."
    assert [example.id for example in probed.examples] == [list(videos.clips)[2]]
    assert probed.report.usable == 1
    assert len(seen) == 3


def test_a_video_of_another_length_than_annotated_is_told_and_used(rendered: Videos, tmp_path: Path) -> None:
    records = {video_id: activitynet_record(clip) for video_id, clip in rendered.clips.items()}
    one, *_ = records
    records[one]["duration"] = 120.0
    dataset = read_dataset(Format.ACTIVITYNET, [write_json(tmp_path / "a.json", records)], rendered.folder)
    report = probe_videos(dataset, prober()).report
    (finding,) = report.other_length
    assert finding.what == one
    assert finding.why == f"{rendered.clips[one].duration_s:.1f} s long, annotated as 120.0 s"
    assert report.usable == 3
