"""What a decoding process does from its start to its end.

Its standard input is the video, its standard output the link over which it speaks `decode_wire`.
"""

import io
import mmap
import os
import socket
from typing import BinaryIO

import av
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter

from workers.decode_frames import FrameReader, usable_threads
from workers.decode_sandbox import confine
from workers.decode_source import open_video
from workers.decode_timeline import Timeline, Undecodable, read_timeline, require_readable
from workers.decode_wire import (
    FULL_TURN,
    TIMESTAMP,
    Kind,
    VideoInfo,
    receive_descriptor,
    receive_json,
    send,
    send_json,
)
from workers.frame_plan import DecodeLimits, FramePlan

_INDEXED = ("mov", "matroska", "avi")
"""Demuxers whose files carry an index: elsewhere a jump lands somewhere near, so those are read through."""


def main(parent_pid: int) -> None:
    """Decode standard input as the link asks; every outcome is a message."""
    with socket.socket(fileno=1) as link, _StoredVideo(0, closefd=False) as source:
        request = receive_json(link, Kind.REQUEST)
        plan, limits = FramePlan(**request["plan"]), DecodeLimits(**request["limits"])
        cpu_s = limits.cpu_s * max(1, limits.threads)
        missing = confine(memory_bytes=limits.memory_bytes, cpu_s=cpu_s, parent_pid=parent_pid)
        if missing or request["demuxer"] is None:
            send_json(link, Kind.SANDBOX, missing)
        if request["demuxer"] is None or (missing and limits.require_sandbox):
            return
        refusal = _refusal(source, request["demuxer"], plan, limits, link)
        if source.failure is not None:  # whatever FFmpeg has made of it
            reason = (source.failure.strerror or "unknown error").lower()
            refusal = ("internal.error", f"The stored video could not be read: {reason}.")
        if refusal is None:
            send(link, Kind.DONE)
        else:
            code, message = refusal
            send_json(link, Kind.ERROR, {"code": code, "message": message})


class _StoredVideo(io.FileIO):
    """Standard input. A disk that can't be read is no fault of the video's, so that is noted in `failure`."""

    failure: OSError | None = None

    def read(self, size: int | None = -1, /) -> bytes | None:
        try:
            return super().read(size)
        except OSError as failure:
            self.failure = failure
            raise


def _refusal(
    source: BinaryIO, demuxer: str, plan: FramePlan, limits: DecodeLimits, link: socket.socket
) -> tuple[str, str] | None:
    """Decode; the code and the sentence that refuse the video, None once all of its frames are sent."""
    try:
        _decode(source, demuxer, plan, limits, link)
    except Undecodable as refusal:
        return refusal.code, str(refusal)
    except MemoryError:
        return "video.too_large", "Decoding this video takes too much memory."
    except av.error.EOFError:
        return "video.no_frames", "The file ends before its first frame."
    except (av.error.FFmpegError, OSError) as failure:
        # OSError: it sent its demuxer to before its first byte.
        reason = (failure.strerror or "unknown error").lower()
        return "video.undecodable", f"The video is damaged: {reason}."
    except ValueError as failure:
        return "video.undecodable", f"The video can't be used: {failure}."
    return None


def _decode(
    source: BinaryIO, demuxer: str, plan: FramePlan, limits: DecodeLimits, link: socket.socket
) -> None:
    """Once over the packets for the timeline, once more for the frames that the plan picks from it."""
    with open_video(source, demuxer, limits) as (container, stream):
        timeline = read_timeline(container, stream, limits, indexed=demuxer in _INDEXED)
    wanted = [timeline.pts[i] for i in plan.indices(len(timeline.pts), timeline.duration_s)]
    with open_video(source, demuxer, limits) as (container, stream):
        threads = usable_threads(stream, limits.threads, limits.memory_bytes)
        height, width = stream.height, stream.width  # as planned for: a decoder may think otherwise later
        size = plan.frame_size(height, width, len(wanted))
        scaler, memory, sent = VideoReformatter(), None, 0
        for pts, frame in FrameReader(container, stream, timeline, threads).frames_at(wanted):
            if memory is None:
                memory = _memory(link, _info((height, width), timeline, frame, len(wanted), *size))
            _write(memory, sent, scaler, frame, *size)
            seconds = float((pts - timeline.pts[0]) * timeline.time_base)
            send(link, Kind.FRAME, TIMESTAMP.pack(seconds))
            sent += 1
    require_readable(sent, len(wanted))


def _info(
    picture: tuple[int, int], timeline: Timeline, frame: VideoFrame, count: int, height: int, width: int
) -> VideoInfo:
    return VideoInfo(
        width=picture[1],
        height=picture[0],
        fps=timeline.fps,
        duration_s=float(timeline.duration_s),
        frame_count=len(timeline.pts),
        rotation=frame.rotation if abs(frame.rotation) <= FULL_TURN else 0,  # of a matrix that turns nothing
        count=count,
        frame_height=height,
        frame_width=width,
    )


def _memory(link: socket.socket, info: VideoInfo) -> mmap.mmap:
    """The worker's memory for these frames."""
    send_json(link, Kind.INFO, vars(info))
    descriptor = receive_descriptor(link, Kind.MEMORY)
    try:
        return mmap.mmap(descriptor, info.count * info.frame_bytes)
    except OSError as full:
        raise MemoryError from full
    finally:
        os.close(descriptor)


def _write(
    memory: mmap.mmap, index: int, scaler: VideoReformatter, frame: VideoFrame, height: int, width: int
) -> None:
    """Packed RGB of the frame at the wanted size into its place, row by row without swscale's padding."""
    scaled = scaler.reformat(
        frame, width=width, height=height, format="rgb24", interpolation="AREA", threads=1
    )
    rows, stride = memoryview(scaled.planes[0]), scaled.planes[0].line_size
    packed = 3 * width
    at = index * height * packed
    if stride == packed:
        memory[at : at + height * packed] = rows[: height * packed]
        return
    for y in range(height):
        memory[at + y * packed : at + (y + 1) * packed] = rows[y * stride : y * stride + packed]
