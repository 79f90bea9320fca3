"""The program that decodes one video and ends: `python -m workers.decode_child '<json>'`.

The video is its standard input, messages of `decode_wire` are its standard output. FFmpeg reads the
video through that one descriptor: it is never given a name or an address that it could open, and a
demuxer that asks for another file is refused.
"""

import json
import os
import sys
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, BinaryIO, NoReturn

import av
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from workers.decode_sandbox import confine
from workers.decode_wire import TIMESTAMP, Kind, send, send_json
from workers.frame_plan import DecodeLimits, FramePlan

_CODECS = (
    "h264,hevc,av1,libdav1d,vp8,vp9,libvpx,libvpx-vp9,mpeg1video,mpeg2video,mpeg4,msmpeg4,msmpeg4v1,"
    "msmpeg4v2,h263,mjpeg,prores,vc1,wmv1,wmv2,wmv3,theora,dvvideo,ffv1,huffyuv,ffvhuff,rawvideo,png,"
    "aac,mp3,mp3float,ac3,eac3,opus,vorbis,flac,alac,pcm_s16le,pcm_s16be,pcm_u8"
)
_INDEXED = ("mov", "matroska", "avi")
"""Demuxers whose files carry an index: elsewhere a jump lands somewhere near, so those are read through."""
_READ_BYTES = 1 << 20
_LEAST_READABLE = 0.9
"""Below this share of what the container announces, the file is damaged or cut short, and saying so is the answer."""


class Undecodable(Exception):
    """This video can't be turned into frames: a stable code and a sentence for a person."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True)
class Timeline:
    """Every frame of a video in the order they are shown, from its packets (nothing is decoded for this).

    `pts` and `keyframes` are in units of `time_base` seconds, ascending.
    """

    pts: list[int]
    keyframes: list[int]
    time_base: Fraction
    duration_s: Fraction
    fps: float


def main() -> None:
    """Decode standard input as the first argument says; every outcome is a message."""
    request = json.loads(sys.argv[1])
    plan, limits = FramePlan(**request["plan"]), DecodeLimits(**request["limits"])
    confine(memory_bytes=limits.memory_bytes, cpu_s=limits.cpu_s, parent_pid=request["parent_pid"])
    out = os.fdopen(os.dup(1), "wb", buffering=_READ_BYTES)
    try:
        with open(0, "rb", buffering=0, closefd=False) as source:
            _decode(source, request["demuxer"], plan, limits, out)
    except Undecodable as refusal:
        send_json(out, Kind.ERROR, {"code": refusal.code, "message": str(refusal)})
    except MemoryError:
        send_json(
            out,
            Kind.ERROR,
            {"code": "video.undecodable", "message": "Decoding this video takes too much memory."},
        )
    except av.error.EOFError:
        send_json(
            out, Kind.ERROR, {"code": "video.no_frames", "message": "The file ends before its first frame."}
        )
    except av.error.FFmpegError as failure:
        reason = f"The video is damaged: {(failure.strerror or 'unknown error').lower()}."
        send_json(out, Kind.ERROR, {"code": "video.undecodable", "message": reason})
    except ValueError as failure:
        send_json(
            out, Kind.ERROR, {"code": "video.undecodable", "message": f"The video can't be used: {failure}."}
        )


def _open(source: BinaryIO, demuxer: str) -> InputContainer:
    source.seek(0)
    return av.open(
        source,
        format=demuxer,
        buffer_size=_READ_BYTES,
        io_open=_refuse_other_files,
        container_options={"codec_whitelist": _CODECS, "protocol_whitelist": "none"},
    )


def _refuse_other_files(url: str, flags: int, options: dict[str, Any]) -> NoReturn:
    raise PermissionError("a video may not refer to other files")


def _decode(source: BinaryIO, demuxer: str, plan: FramePlan, limits: DecodeLimits, out: BinaryIO) -> None:
    """Once over the packets for the timeline, once more for the frames that the plan picks from it."""
    with _open(source, demuxer) as container:
        stream = _video_stream(container)
        timeline = _timeline(container, stream, limits, seekable=demuxer in _INDEXED)
    wanted = plan.indices(len(timeline.pts), timeline.duration_s)
    with _open(source, demuxer) as container:
        stream = _video_stream(container)
        stream.codec_context.thread_count = limits.threads
        size = plan.frame_size(stream.height, stream.width, len(wanted))
        sent = 0
        for pts, frame in _frames_at(container, stream, timeline, [timeline.pts[i] for i in wanted]):
            if sent == 0:
                send_json(out, Kind.INFO, _info(stream, timeline, frame, len(wanted), *size))
            seconds = float((pts - timeline.pts[0]) * timeline.time_base)
            send(out, Kind.FRAME, TIMESTAMP.pack(seconds), _pixels(frame, *size))
            sent += 1
    if sent < _LEAST_READABLE * len(wanted):
        raise Undecodable(
            "video.undecodable", f"Only {sent} of the {len(wanted)} frames looked for can be decoded."
        )
    send(out, Kind.DONE)


def _info(
    stream: VideoStream, timeline: Timeline, frame: VideoFrame, count: int, height: int, width: int
) -> dict[str, Any]:
    return {
        "width": stream.width,
        "height": stream.height,
        "fps": timeline.fps,
        "duration_s": float(timeline.duration_s),
        "frame_count": len(timeline.pts),
        "rotation": frame.rotation,
        "frames": {"count": count, "height": height, "width": width},
    }


def _video_stream(container: InputContainer) -> VideoStream:
    """The first moving picture; the cover of an audio file is a video stream to FFmpeg, but none to us."""
    for stream in container.streams.video:
        if not stream.disposition & av.stream.Disposition.attached_pic:
            if stream.codec_context is None:
                raise Undecodable("video.undecodable", "The video is coded in a way that is not supported.")
            return stream
    raise Undecodable("video.no_video_stream", "The file holds no video stream.")


def _timeline(
    container: InputContainer, stream: VideoStream, limits: DecodeLimits, *, seekable: bool
) -> Timeline:
    if stream.width * stream.height > limits.max_picture_pixels:
        raise Undecodable("video.undecodable", f"A picture of {stream.width}x{stream.height} is too large.")
    stamps, keyframes = _stamps(container, stream, seekable=seekable)
    if not stamps:
        raise Undecodable("video.no_frames", "The video stream holds no frames.")
    base = stream.time_base or Fraction(1, 1_000_000)
    span = (stamps[-1] - stamps[0]) * base
    _require_whole(container, stream, len(stamps), span)
    duration = _duration(stream, len(stamps), span)
    if duration > limits.max_duration_s:
        limit = f"at most {limits.max_duration_s:.0f} s are accepted"
        raise Undecodable("video.too_long", f"The video lasts {float(duration):.0f} s; {limit}.")
    return Timeline(stamps, keyframes, base, duration, round(float(len(stamps) / duration), 3))


def _stamps(container: InputContainer, stream: VideoStream, *, seekable: bool) -> tuple[list[int], list[int]]:
    """When each frame is shown, and which of them can be jumped to."""
    stamps: list[int] = []
    keyframes: list[int] = []
    for packet in _packets(container, stream):
        stamp = packet.pts if packet.pts is not None else packet.dts
        if packet.size and stamp is not None and not packet.is_discard:
            stamps.append(stamp)
            if packet.is_keyframe and seekable:
                keyframes.append(stamp)
    return sorted(stamps), sorted(keyframes)


def _packets(container: InputContainer, stream: VideoStream) -> Iterator[av.Packet]:
    """Packets up to the end, or up to where the container stops making sense."""
    try:
        yield from container.demux(stream)
    except av.error.InvalidDataError:
        return


def _require_whole(container: InputContainer, stream: VideoStream, readable: int, span: Fraction) -> None:
    """Refuse a file that announces far more than it holds: a summary of its first part would pass for the whole.

    The length that a transport stream announces is an estimate from what is there, so it says nothing.
    """
    cut_by_count = stream.frames and readable < _LEAST_READABLE * stream.frames
    announced_s = (container.duration or 0) / av.time_base
    cut_by_time = readable > 1 and len(container.streams) == 1 and span + 1 < _LEAST_READABLE * announced_s
    if cut_by_count or cut_by_time:
        raise Undecodable(
            "video.undecodable", "The file is cut short: it announces more video than it holds."
        )


def _duration(stream: VideoStream, count: int, span: Fraction) -> Fraction:
    """Seconds from the first frame to the end of the last.

    The announced frame rate is exact where a container's clock rounds to milliseconds, and is believed
    while it agrees with the clock; a variable frame rate falls back to the mean interval.
    """
    by_clock = span * count / (count - 1) if count > 1 else Fraction(0)
    rate = stream.average_rate or stream.guessed_rate
    if rate:
        by_rate = count / Fraction(rate)
        if count == 1 or abs(by_rate - by_clock) <= max(by_clock / 100, 1 / Fraction(rate)):
            return by_rate
    return by_clock or Fraction(1, 25)


def _frames_at(
    container: InputContainer, stream: VideoStream, timeline: Timeline, wanted: list[int]
) -> Iterator[tuple[int, VideoFrame]]:
    """(pts, frame) for every wanted pts, jumping to the next wanted one's keyframe where that skips some decoding."""
    frames = _decoded(container, stream)
    position = timeline.pts[0]
    for target in wanted:
        keyframe = _last_at_or_before(timeline.keyframes, target)
        if keyframe is not None and keyframe > position:
            container.seek(keyframe, stream=stream, backward=True)
            frames = _decoded(container, stream)
        for frame in frames:
            stamp = frame.pts if frame.pts is not None else frame.dts
            if stamp is not None and stamp >= target:
                position = stamp
                yield stamp, frame
                break
        else:
            return


def _decoded(container: InputContainer, stream: VideoStream) -> Iterator[VideoFrame]:
    """Frames from here on. A broken packet costs its own frame, not the rest of the video."""
    for packet in _packets(container, stream):
        try:
            yield from packet.decode()
        except av.error.InvalidDataError:
            continue


def _last_at_or_before(stamps: list[int], target: int) -> int | None:
    at = bisect_right(stamps, target)
    return stamps[at - 1] if at else None


def _pixels(frame: VideoFrame, height: int, width: int) -> bytes:
    """Packed RGB of the frame at the wanted size, row by row without swscale's padding."""
    scaled = frame.reformat(width=width, height=height, format="rgb24", interpolation="AREA")
    plane = scaled.planes[0]
    rows, stride = memoryview(plane), plane.line_size
    return b"".join(rows[y * stride : y * stride + 3 * width] for y in range(height))


if __name__ == "__main__":
    main()
