"""Decoded frames on disk: a video is decoded once, not once an epoch.

A folder of safetensors files, one for each video and frame plan, no larger together than ``max_bytes``. The one that
was used least recently goes first. Any number of processes may share the folder: an entry appears whole, by a rename,
and one lock is held while room is made. A video that changed (its size or time) is another entry; the old one ages out.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from training.data.errors import CacheUnusable

_ENTRY, _PARTIAL, _LOCK = ".frames.safetensors", ".partial", ".lock"
_ABANDONED_S = 3600.0  # a partial file that old was left by a process that died


@dataclass(frozen=True, eq=False)
class VideoFrames:
    """(T, H, W, 3) uint8 RGB frames, the (T,) seconds since the first one, and the file's length in seconds."""

    frames: np.ndarray
    timestamps_s: np.ndarray
    duration_s: float


Decode = Callable[[Path], VideoFrames]
"""Frames of a file by one fixed plan. Raises VideoUnreadable."""


class FrameCache:
    """``decode`` behind a folder. ``plan`` says how it chooses and scales frames: other plans are other entries."""

    def __init__(self, folder: Path, max_bytes: int, decode: Decode, plan: Mapping[str, Any]) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        self._decode = decode
        self._plan = json.dumps(plan, sort_keys=True)
        with _telling(folder):
            folder.mkdir(parents=True, exist_ok=True)

    def frames(self, video: Path) -> VideoFrames:
        """The frames of a video, from the folder where it has them.

        Raises:
            VideoUnreadable: the decode function's.
            CacheUnusable: an entry cannot be written.
        """
        entry = self._folder / (self._key(video) + _ENTRY)
        found = _read(entry)
        if found is None:
            found = self._decode(video)
            self._write(entry, found)
        return found

    def _key(self, video: Path) -> str:
        status = video.stat()
        identity = [str(video.resolve()), status.st_size, status.st_mtime_ns, self._plan]
        return hashlib.sha256(json.dumps(identity).encode()).hexdigest()

    def _write(self, entry: Path, video: VideoFrames) -> None:
        tensors = {"frames": np.ascontiguousarray(video.frames), "timestamps_s": video.timestamps_s}
        data = save(tensors, metadata={"duration_s": repr(video.duration_s)})
        if len(data) > self._max_bytes:
            return
        partial = entry.with_name(f"{entry.name}.{os.urandom(6).hex()}{_PARTIAL}")
        with _telling(self._folder):
            try:
                partial.write_bytes(data)
                with self._alone():
                    self._make_room(len(data))
                    partial.replace(entry)
            finally:
                partial.unlink(missing_ok=True)

    def _make_room(self, needed: int) -> None:
        """Drops entries, the least recently used first, until ``needed`` more bytes fit. Under the lock."""
        entries: list[tuple[int, int, Path]] = []
        for path in self._folder.iterdir():
            with suppress(FileNotFoundError):  # another process finished or dropped it
                status = path.stat()
                if path.name.endswith(_ENTRY):
                    entries.append((status.st_mtime_ns, status.st_size, path))
                elif path.name.endswith(_PARTIAL) and status.st_mtime < time.time() - _ABANDONED_S:
                    path.unlink()
        kept = sum(size for _, size, _ in entries)
        for _, size, path in sorted(entries):
            if kept + needed <= self._max_bytes:
                return
            path.unlink(missing_ok=True)
            kept -= size

    @contextmanager
    def _alone(self) -> Iterator[None]:
        with (self._folder / _LOCK).open("ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def _read(entry: Path) -> VideoFrames | None:
    """An entry that is there and sound, marked as used now; a damaged one is dropped."""
    try:
        os.utime(entry)
        with safe_open(entry, framework="numpy") as file:
            return VideoFrames(
                file.get_tensor("frames"),
                file.get_tensor("timestamps_s"),
                float(file.metadata()["duration_s"]),
            )
    except FileNotFoundError:
        return None
    except SafetensorError:
        entry.unlink(missing_ok=True)
        return None


@contextmanager
def _telling(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        reason = "its disk is full" if full else error.strerror
        raise CacheUnusable(f"The frame cache {folder} cannot be written: {reason}") from error
