"""Video file in, frames out, with the parser in a process of its own.

One process per video: whatever a hostile or broken file does to FFmpeg, it does it there, without our
files, our settings or our memory, and ends when the clock says so. The frames come back in shared memory.
"""

import json
import logging
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from math import isfinite
from pathlib import Path
from typing import NoReturn

import numpy as np

from contract.containers import SNIFF_BYTES, describe, sniff
from contract.errors import Code, JobFailure
from workers.cpus import usable_cpus
from workers.decode_memory import FrameMemory, StillWritable
from workers.decode_process import SERVER, DecodeProcess, DecodeServer
from workers.decode_sandbox import Layer, Missing
from workers.decode_wire import (
    FULL_TURN,
    HEADER_BYTES,
    TIMESTAMP,
    Kind,
    VideoInfo,
    read_header,
    send_descriptor,
    send_json,
)
from workers.frame_plan import DecodeLimits, FramePlan
from workers.patience import Patience

log = logging.getLogger("visum.decode")

_POLL_S = 0.1
_MAX_JSON_BYTES = 1 << 16
_MOST_THREADS = 16
_MOST_WORDS = 300
_MOST_COUNT = 1 << 31
_CLOCK_SLACK = 1.02
"""A frame's time over the video's length: the rate that a container announces is believed within 1 % of its clock."""


class DecodeCanceled(Exception):
    """The caller's cancel event was set while the video was decoded."""


class DecoderDied(Exception):
    """What a JobFailure with decode.crashed comes from.

    `status` is the process's exit status, below 0 a signal's number; None if it went with the server of all videos.
    """

    def __init__(self, status: int | None, words: str) -> None:
        super().__init__(f"the decoding process ended with status {status}: {words!r}")
        self.status = status


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
    on_missing: Callable[[Missing], None] | None = None,
    server: DecodeServer | None = None,
) -> DecodedVideo:
    """Frames of the video at `path` as `plan` wants them. `on_frame(done, total)` is called as they arrive,
    `on_missing` if the process lacks layers of its sandbox. Without a `server`, this worker's own starts the process.

    Raises:
        JobFailure: video.unsupported_container, video.no_video_stream, video.no_frames, video.too_long,
            video.too_large, video.undecodable, decode.timeout, decode.crashed or internal.error. Retryable where it
            is the machine's fault and not the video's.
        DecodeCanceled: if `cancel` was set on the way.
    """
    limits = limits or DecodeLimits()
    with ExitStack() as stack:
        # Unbuffered: the process inherits the descriptor's own position.
        source = stack.enter_context(path.open("rb", buffering=0))
        head = source.read(SNIFF_BYTES)
        container = sniff(head)
        if container is None:
            raise JobFailure(
                Code.VIDEO_UNSUPPORTED_CONTAINER, f"The file is not a video but {describe(head)}."
            )
        limits = replace(limits, threads=limits.threads or stack.enter_context(_CPUS.share()))
        process = (server or SERVER).start(source.fileno())
        stack.callback(process.close)
        return _Receiver(process, plan, limits, cancel, on_frame, on_missing).receive(container.demuxer)


class _Cpus:
    """How many CPUs a video that starts may use: as many as there are for each of those under way."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._videos = 0

    @contextmanager
    def share(self) -> Iterator[int]:
        with self._lock:
            self._videos += 1
            share = usable_cpus() // self._videos
        try:
            yield min(max(share, 1), _MOST_THREADS)
        finally:
            with self._lock:
                self._videos -= 1


_CPUS = _Cpus()


class _Receiver:
    """Reads one decoding process to its end; bounded in bytes by the plan and in time by `limits.wall_s`."""

    def __init__(
        self,
        process: DecodeProcess,
        plan: FramePlan,
        limits: DecodeLimits,
        cancel: threading.Event | None,
        on_frame: Callable[[int, int], None] | None,
        on_missing: Callable[[Missing], None] | None,
    ) -> None:
        self._process = process
        self._plan = plan
        self._limits = limits
        self._patience = Patience(limits.wall_s, look_s=_POLL_S)
        self._cancel = cancel
        self._on_frame = on_frame
        self._on_missing = on_missing
        process.link.settimeout(_POLL_S)

    def receive(self, demuxer: str) -> DecodedVideo:
        request = {"demuxer": demuxer, "plan": asdict(self._plan), "limits": asdict(self._limits)}
        with suppress(ConnectionError):  # gone already: there is nothing to read either
            send_json(self._process.link, Kind.REQUEST, request)
        kind, payload = self._message()
        if kind is Kind.SANDBOX:
            self._note_missing(payload)
            kind, payload = self._message()
        if kind is Kind.ERROR:
            raise self._refusal(payload)
        if kind is not Kind.INFO:
            self._crash()
        info = self._info(payload)
        memory = FrameMemory(info.count, info.frame_height, info.frame_width)
        try:
            stamps = self._fill(info, memory)
            self._process.end()
            return _decoded(info, memory.frames()[: len(stamps)], stamps)
        except StillWritable:
            self._crash()
        finally:
            memory.close()

    def _fill(self, info: VideoInfo, memory: FrameMemory) -> list[float]:
        """The timestamps in seconds of the frames that are now in `memory`."""
        stamps: list[float] = []
        with suppress(ConnectionError):
            send_descriptor(self._process.link, Kind.MEMORY, memory.fileno())
        while True:
            kind, payload = self._message()
            if kind is Kind.FRAME and len(stamps) < info.count and len(payload) == TIMESTAMP.size:
                stamp = TIMESTAMP.unpack(payload)[0]
                if not 0 <= stamp <= info.duration_s * _CLOCK_SLACK:
                    self._crash()
                stamps.append(round(stamp, 6))
                if self._on_frame is not None:
                    self._on_frame(len(stamps), info.count)
            elif kind is Kind.DONE and stamps:
                return stamps
            elif kind is Kind.ERROR:
                raise self._refusal(payload)
            else:
                self._crash()

    def _info(self, payload: bytes) -> VideoInfo:
        try:
            info = VideoInfo(**json.loads(payload))
            if not _is_sound(info):
                raise ValueError(f"{info!r} is no video")
            if not self._is_planned(info):
                raise ValueError(f"{info} is beyond the plan")
        except (TypeError, ValueError, OverflowError, RecursionError) as odd:
            log.warning("%.200s", odd)
            self._crash()
        return info

    def _is_planned(self, info: VideoInfo) -> bool:
        """Whether a video of this kind is taken, and gives such frames."""
        return (
            info.width * info.height <= self._limits.max_picture_pixels
            and info.frame_count <= self._limits.max_frames
            and info.duration_s <= self._limits.max_duration_s
            and info.count <= min(self._plan.max_frames, info.frame_count)
            and info.count * info.frame_bytes <= self._limits.memory_bytes
            and (info.frame_height, info.frame_width)
            == self._plan.frame_size(info.height, info.width, info.count)
        )

    def _note_missing(self, payload: bytes) -> None:
        """
        Raises:
            JobFailure: all layers are required. Another worker, or this one later, may have them.
        """
        try:
            missing = {Layer(layer): _printable(str(why)) for layer, why in json.loads(payload).items()}
        except (AttributeError, TypeError, ValueError, RecursionError):
            self._crash()
        if self._on_missing is not None:
            self._on_missing(missing)
        if missing and self._limits.require_sandbox:
            message = "The machine could not shut the decoder of this video in."
            raise JobFailure(Code.INTERNAL_ERROR, message, retryable=True)

    def _refusal(self, payload: bytes) -> JobFailure:
        try:
            error = json.loads(payload)
            code, message = Code(error["code"]), _printable(str(error["message"]))
            return JobFailure(code, message, retryable=code is Code.INTERNAL_ERROR)
        except (KeyError, TypeError, ValueError, RecursionError):
            self._crash()

    def _message(self) -> tuple[Kind, bytes]:
        try:
            kind, length = read_header(self._exactly(HEADER_BYTES))
        except ValueError:
            self._crash()
        if length > _MAX_JSON_BYTES:
            self._crash()
        return kind, self._exactly(length)

    def _exactly(self, length: int) -> bytes:
        """So many bytes of the link. The clock and the cancel event are looked at where they are waited for: what is
        there already was sent in time."""
        found = b""
        while len(found) < length:
            try:
                part = self._process.link.recv(length - len(found))
            except TimeoutError:
                self._check()
                continue
            except ConnectionError:
                part = b""
            if not part:
                self._crash()
            found += part
            if len(found) < length:
                self._check()
        return found

    def _check(self) -> None:
        if self._cancel is not None and self._cancel.is_set():
            raise DecodeCanceled
        if self._patience.over():
            raise JobFailure(
                Code.DECODE_TIMEOUT,
                f"Decoding took longer than {self._limits.wall_s:.0f} s and was stopped.",
            )

    def _crash(self) -> NoReturn:
        """The process ended, or spoke, out of turn. Its last words go to the log, not to the user."""
        status, words = self._process.give_up()
        died = DecoderDied(status, words[-1000:])
        log.warning("%s", died)
        if status == -signal.SIGXCPU:
            message = "Decoding took too much of the processor and was stopped."
            raise JobFailure(Code.DECODE_TIMEOUT, message) from died
        # Without a status it went with the server that all videos share; SIGKILL is what the kernel ends a process
        # with when memory runs out. Neither says anything of this video.
        if status is None or (status == -signal.SIGKILL and not self._process.killed):
            message = "The decoder of this video was killed, as on a machine that is short of memory."
            raise JobFailure(Code.DECODE_CRASHED, message, retryable=True) from died
        message = "The decoder gave up on this video; the file may be damaged."
        raise JobFailure(Code.DECODE_CRASHED, message) from died


def _is_sound(info: VideoInfo) -> bool:
    """Whether these are the numbers of a video. A process that an attacker has taken over says what it likes."""
    counts = (info.width, info.height, info.frame_count, info.count, info.frame_height, info.frame_width)
    times = (info.fps, info.duration_s)
    return (
        all(type(count) is int and 0 < count < _MOST_COUNT for count in counts)
        and all(isinstance(time, int | float) and isfinite(time) and time >= 0 for time in times)
        and type(info.rotation) is int
        and abs(info.rotation) <= FULL_TURN
    )


def _printable(words: str) -> str:
    return "".join(filter(str.isprintable, words[:_MOST_WORDS]))


def _decoded(info: VideoInfo, frames: np.ndarray, stamps: list[float]) -> DecodedVideo:
    quarter_turns = round(info.rotation / 90) % 4
    upright = np.ascontiguousarray(np.rot90(frames, quarter_turns, axes=(1, 2))) if quarter_turns else frames
    width, height = info.width, info.height
    if quarter_turns % 2:
        width, height = height, width
    return DecodedVideo(upright, stamps, info.duration_s, info.fps, width, height, info.frame_count)
