"""Video file in, frames out, with the parser in a process of its own.

One process per video: whatever a hostile or broken file does to FFmpeg, it does it there, without our
files, our settings or our memory, and ends when the clock says so.
"""

import json
import logging
import os
import selectors
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from contract.containers import SNIFF_BYTES, describe, sniff
from contract.errors import Code, JobFailure
from workers.decode_wire import HEADER_BYTES, TIMESTAMP, Kind, read_header
from workers.frame_plan import DecodeLimits, FramePlan

log = logging.getLogger("visum.decode")

_PACKAGE_ROOT = Path(__file__).resolve().parent.parent
_POLL_S = 0.1
_MAX_JSON_BYTES = 1 << 16
_STDERR_BYTES = 1 << 12


class DecodeCanceled(Exception):
    """The caller's cancel event was set while the video was decoded."""


@dataclass(frozen=True)
class DecodedVideo:
    """What was kept of a video.

    frames: (T, H, W, 3) uint8 RGB, upright. timestamps_s: (T,) seconds since the first frame, true ones.
    fps, width, height, frame_count and duration_s describe the file, not the kept frames.
    """

    frames: np.ndarray
    timestamps_s: list[float]
    duration_s: float
    fps: float
    width: int
    height: int
    frame_count: int


def decode(
    path: Path,
    plan: FramePlan,
    limits: DecodeLimits | None = None,
    *,
    cancel: threading.Event | None = None,
    on_frame: Callable[[int, int], None] | None = None,
) -> DecodedVideo:
    """Frames of the video at `path` as `plan` wants them. `on_frame(done, total)` is called as they arrive.

    Raises:
        JobFailure: video.unsupported_container, video.no_video_stream, video.no_frames, video.too_long,
            video.undecodable, decode.timeout or decode.crashed.
        DecodeCanceled: if `cancel` was set on the way.
    """
    limits = limits or DecodeLimits()
    with path.open(
        "rb", buffering=0
    ) as source:  # unbuffered: the child inherits the descriptor's own position
        head = source.read(SNIFF_BYTES)
        container = sniff(head)
        if container is None:
            raise JobFailure(
                Code.VIDEO_UNSUPPORTED_CONTAINER, f"The file is not a video but {describe(head)}."
            )
        child = _start(source, container.demuxer, plan, limits)
    try:
        return _Receiver(child, limits.wall_s, cancel, on_frame).receive()
    finally:
        _end(child)


def _start(source: IO[bytes], demuxer: str, plan: FramePlan, limits: DecodeLimits) -> subprocess.Popen[bytes]:
    """The decoding process, with the video as its standard input and an environment that holds none of ours."""
    request = {"demuxer": demuxer, "plan": asdict(plan), "limits": asdict(limits), "parent_pid": os.getpid()}
    environment = {"PYTHONPATH": str(_PACKAGE_ROOT), "LC_ALL": "C.UTF-8", "PATH": os.defpath}
    return subprocess.Popen(
        [sys.executable, "-P", "-s", "-m", "workers.decode_child", json.dumps(request)],
        stdin=source,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
        cwd="/",
        bufsize=0,
    )


def _end(child: subprocess.Popen[bytes]) -> None:
    """Kill the process if it still runs, and collect it."""
    child.kill()
    child.wait()
    for pipe in (child.stdout, child.stderr):
        if pipe is not None:
            pipe.close()


class _Receiver:
    """Reads one decoding process to its end; bounded in bytes by what INFO announced and in time by `wall_s`."""

    def __init__(
        self,
        child: subprocess.Popen[bytes],
        wall_s: float,
        cancel: threading.Event | None,
        on_frame: Callable[[int, int], None] | None,
    ) -> None:
        assert child.stdout is not None
        assert child.stderr is not None
        self._child = child
        self._pipe = child.stdout
        self._wall_s = wall_s
        self._deadline = time.monotonic() + wall_s
        self._cancel = cancel
        self._on_frame = on_frame
        os.set_blocking(self._pipe.fileno(), False)
        os.set_blocking(child.stderr.fileno(), False)

    def receive(self) -> DecodedVideo:
        info: dict[str, Any] | None = None
        frames = np.empty((0, 0, 0, 3), np.uint8)
        stamps: list[float] = []
        while True:
            kind, length = self._message()
            if kind is Kind.INFO and info is None:
                info = self._json(length)
                size = info["frames"]
                frames = np.empty((size["count"], size["height"], size["width"], 3), np.uint8)
            elif kind is Kind.FRAME and info is not None and len(stamps) < len(frames):
                stamps.append(self._frame(length, frames[len(stamps)]))
                if self._on_frame is not None:
                    self._on_frame(len(stamps), len(frames))
            elif kind is Kind.DONE and info is not None and stamps:
                return _decoded(info, frames[: len(stamps)], stamps)
            elif kind is Kind.ERROR:
                error = self._json(length)
                raise JobFailure(Code(error["code"]), error["message"])
            else:
                raise self._crashed()

    def _message(self) -> tuple[Kind, int]:
        try:
            return read_header(bytes(self._exactly(bytearray(HEADER_BYTES))))
        except ValueError:
            raise self._crashed() from None

    def _json(self, length: int) -> dict[str, Any]:
        if length > _MAX_JSON_BYTES:
            raise self._crashed()
        return json.loads(bytes(self._exactly(bytearray(length))))

    def _frame(self, length: int, frame: np.ndarray) -> float:
        """Fill `frame` (H, W, 3) in place; returns its timestamp in seconds."""
        if length != TIMESTAMP.size + frame.nbytes:
            raise self._crashed()
        stamp = self._exactly(bytearray(TIMESTAMP.size))
        self._exactly(memoryview(frame).cast("B"))
        return round(TIMESTAMP.unpack(stamp)[0], 6)

    def _exactly(self, buffer: bytearray | memoryview) -> bytearray | memoryview:
        """Fill `buffer` from the pipe, looking at the clock and the cancel event while it waits."""
        view = memoryview(buffer)
        with selectors.DefaultSelector() as selector:
            selector.register(self._pipe, selectors.EVENT_READ)
            while view:
                self._check()
                if selector.select(_POLL_S):
                    count = self._pipe.readinto(view)  # type: ignore[attr-defined]
                    if count == 0:
                        raise self._crashed()
                    view = view[count or 0 :]
        return buffer

    def _check(self) -> None:
        if self._cancel is not None and self._cancel.is_set():
            raise DecodeCanceled
        if time.monotonic() > self._deadline:
            raise JobFailure(
                Code.DECODE_TIMEOUT, f"Decoding took longer than {self._wall_s:.0f} s and was stopped."
            )

    def _crashed(self) -> JobFailure:
        """The process ended, or spoke, out of turn. Its last words go to the log, not to the user."""
        self._child.kill()
        status = self._child.wait()
        assert self._child.stderr is not None
        words = (self._child.stderr.read(_STDERR_BYTES) or b"").decode(errors="replace").strip()
        log.warning("the decoding process ended with status %s: %s", status, words[-1000:])
        return JobFailure(Code.DECODE_CRASHED, "The decoder gave up on this video; the file may be damaged.")


def _decoded(info: dict[str, Any], frames: np.ndarray, stamps: list[float]) -> DecodedVideo:
    quarter_turns = round(info["rotation"] / 90) % 4
    upright = np.ascontiguousarray(np.rot90(frames, quarter_turns, axes=(1, 2))) if quarter_turns else frames
    width, height = info["width"], info["height"]
    if quarter_turns % 2:
        width, height = height, width
    return DecodedVideo(upright, stamps, info["duration_s"], info["fps"], width, height, info["frame_count"])
