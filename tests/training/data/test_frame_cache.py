"""Frames that are decoded once, within a bound, whoever else shares the folder."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from tests.training.data import cache_process
from tests.training.data.conftest import Videos
from training.data.errors import CacheUnusable, VideoUnreadable
from training.data.frame_cache import FrameCache, VideoFrames
from visum import decoding
from workers.frame_plan import FramePlan

LARGE = 1 << 30
ENTRY = 4 * 32 * 32 * 3


class Decoder:
    """Frames that tell which video they are of; counts what it was asked for."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def __call__(self, path: Path) -> VideoFrames:
        self.asked.append(path.name)
        return cache_process.decode(path)


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """What stands for six videos."""
    folder = tmp_path / "files"
    folder.mkdir()
    for index in range(6):
        (folder / f"{index}.mp4").write_bytes(b"video %d" % index)
    return sorted(folder.iterdir())


@pytest.fixture
def decode() -> Decoder:
    return Decoder()


def entries(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.name.endswith(".safetensors")]


def test_a_real_video_comes_back_from_disk_as_it_was_decoded(rendered: Videos, tmp_path: Path) -> None:
    plan = FramePlan(max_frames=4, size_multiple=8, frame_pixels=64 * 64)
    path = next(rendered.folder.iterdir())
    fresh = decoding.Decoder(plan)(path)
    FrameCache(tmp_path / "cache", LARGE, decoding.Decoder(plan), vars(plan)).frames(path)

    def refuse(path: Path) -> VideoFrames:
        raise AssertionError(f"{path} was decoded again")

    again = FrameCache(tmp_path / "cache", LARGE, refuse, vars(plan)).frames(path)
    assert fresh.frames.shape[0] == 4
    assert np.array_equal(again.frames, fresh.frames)
    assert np.array_equal(again.timestamps_s, fresh.timestamps_s)
    assert again.duration_s == fresh.duration_s


def test_a_video_is_decoded_once_for_each_plan(files: list[Path], decode: Decoder, tmp_path: Path) -> None:
    for max_frames in (4, 4, 8, 8):
        FrameCache(tmp_path / "cache", LARGE, decode, {"max_frames": max_frames}).frames(files[0])
    assert decode.asked == ["0.mp4", "0.mp4"]


def test_a_video_that_changed_is_decoded_again(files: list[Path], decode: Decoder, tmp_path: Path) -> None:
    cache = FrameCache(tmp_path / "cache", LARGE, decode, {})
    cache.frames(files[0])
    files[0].write_bytes(b"another video")
    cache.frames(files[0])
    assert decode.asked == ["0.mp4", "0.mp4"]


def test_two_videos_of_one_size_and_time_are_kept_apart(
    files: list[Path], decode: Decoder, tmp_path: Path
) -> None:
    for path in files[:2]:
        os.utime(path, (1e9, 1e9))
    cache = FrameCache(tmp_path / "cache", LARGE, decode, {})
    assert [int(cache.frames(path).frames[0, 0, 0, 0]) for path in files[:2]] == [0, 1]


def test_the_entry_used_least_recently_makes_room(files: list[Path], decode: Decoder, tmp_path: Path) -> None:
    cache = FrameCache(tmp_path / "cache", int(3.5 * ENTRY), decode, {})
    for path in (files[0], files[1], files[2], files[0], files[3]):  # 1 was used longest ago when 3 comes
        cache.frames(path)
        time.sleep(0.01)  # file times tell what was used when
    decode.asked.clear()
    for path in (files[0], files[2], files[3], files[1]):
        cache.frames(path)
    assert decode.asked == ["1.mp4"]


def test_all_entries_together_stay_within_the_bound(
    files: list[Path], decode: Decoder, tmp_path: Path
) -> None:
    folder = tmp_path / "cache"
    cache = FrameCache(folder, int(2.5 * ENTRY), decode, {})
    for path in files:
        cache.frames(path)
        assert sum(entry.stat().st_size for entry in folder.iterdir()) <= 2.5 * ENTRY
    assert len(entries(folder)) == 2


def test_a_video_larger_than_the_whole_bound_is_given_and_not_kept(
    files: list[Path], decode: Decoder, tmp_path: Path
) -> None:
    cache = FrameCache(tmp_path / "cache", ENTRY - 1, decode, {})
    assert cache.frames(files[1]).frames.max() == 1
    assert entries(tmp_path / "cache") == []


def test_a_damaged_entry_is_dropped_and_decoded_again(
    files: list[Path], decode: Decoder, tmp_path: Path
) -> None:
    cache = FrameCache(tmp_path / "cache", LARGE, decode, {})
    cache.frames(files[2])
    (entry,) = entries(tmp_path / "cache")
    entry.write_bytes(entry.read_bytes()[:100])
    assert cache.frames(files[2]).frames.max() == 2
    assert decode.asked == ["2.mp4", "2.mp4"]


def test_what_a_dead_process_left_half_written_is_removed(
    files: list[Path], decode: Decoder, tmp_path: Path
) -> None:
    cache = FrameCache(tmp_path / "cache", LARGE, decode, {})
    fresh, old = tmp_path / "cache" / "fresh.partial", tmp_path / "cache" / "old.partial"
    fresh.write_bytes(b"x")
    old.write_bytes(b"x")
    os.utime(old, (1e9, 1e9))
    cache.frames(files[0])
    assert fresh.exists()
    assert not old.exists()


def test_a_video_that_gives_no_frames_leaves_nothing_behind(files: list[Path], tmp_path: Path) -> None:
    def fail(path: Path) -> VideoFrames:
        raise VideoUnreadable("no frames")

    cache = FrameCache(tmp_path / "cache", LARGE, fail, {})
    with pytest.raises(VideoUnreadable, match="no frames"):
        cache.frames(files[0])
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_full_disk_is_said_and_leaves_nothing_half_written(
    files: list[Path], decode: Decoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = FrameCache(tmp_path / "cache", LARGE, decode, {})

    def write_some(self: Path, data: bytes) -> int:
        with self.open("wb") as file:
            file.write(data[:10])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", write_some)
    with pytest.raises(CacheUnusable, match="cache cannot be written: its disk is full"):
        cache.frames(files[0])
    assert list((tmp_path / "cache").iterdir()) == []


def test_an_entry_appears_whole_or_not_at_all(
    files: list[Path], decode: Decoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: Path, target: Path) -> Path:
        raise OSError(errno.EIO, "Input/output error")

    cache = FrameCache(tmp_path / "cache", LARGE, decode, {})
    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(CacheUnusable, match="Input/output error"):
        cache.frames(files[0])
    assert entries(tmp_path / "cache") == []


def test_room_is_made_by_one_process_at_a_time(files: list[Path], decode: Decoder, tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    cache = FrameCache(folder, LARGE, decode, {})
    writer = threading.Thread(target=cache.frames, args=(files[0],))
    with (folder / ".lock").open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # as another process that makes room
        writer.start()
        deadline = time.monotonic() + 30
        while not any(path.stat().st_size > ENTRY for path in folder.glob("*.partial")):
            assert time.monotonic() < deadline
        assert entries(folder) == []
    writer.join()
    assert len(entries(folder)) == 1


def test_a_folder_that_cannot_be_made_is_said(decode: Decoder, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(CacheUnusable, match="Not a directory"):
        FrameCache(tmp_path / "file" / "cache", LARGE, decode, {})


def test_processes_that_share_a_folder_never_exceed_the_bound_nor_mix_videos_up(
    files: list[Path], tmp_path: Path
) -> None:
    folder, bound = tmp_path / "cache", int(3.5 * ENTRY)
    command = [sys.executable, "-m", cache_process.__name__, str(files[0].parent), str(folder), str(bound)]
    processes = [subprocess.Popen([*command, str(seed), "150"]) for seed in range(3)]
    assert [process.wait(timeout=120) for process in processes] == [0, 0, 0]
    assert 0 < len(entries(folder)) <= 3
    assert sum(entry.stat().st_size for entry in entries(folder)) <= bound
    assert not list(folder.glob("*.partial"))
