"""When the frames of a video are shown, and from which of them decoding can begin. Nothing is decoded for this."""

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

import av
from av.container import InputContainer
from av.video.stream import VideoStream

from workers.frame_plan import DecodeLimits

_LEAST_READABLE = 0.9
"""Below this share of what the container announces, the file is damaged or cut short, and saying so is the answer."""

_ALWAYS_DECODED_BYTES = 4 << 30
"""So much is decoded in seconds, whatever its proportion: a black clip is no attack."""


class Undecodable(Exception):
    """This video can't be turned into frames: a stable code and a sentence for a person."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True)
class Timeline:
    """Every frame of a video in the order they are shown, from its packets.

    `pts` and `keyframes` are in units of `time_base` seconds, ascending.
    """

    pts: list[int]
    keyframes: list[int]
    time_base: Fraction
    duration_s: Fraction
    fps: float


def read_timeline(
    container: InputContainer, stream: VideoStream, limits: DecodeLimits, *, indexed: bool
) -> Timeline:
    """Once over all packets. No container's index says as much: mp4's holds decoding times only, Matroska's only
    keyframes, and reading a packet costs a thousandth of decoding it. Without `indexed`, no keyframe is listed.

    Raises:
        Undecodable: the video is of no size, too large, too long, cut short, empty, or a bomb.
    """
    if not stream.width * stream.height:
        raise Undecodable("video.undecodable", "Nowhere in the video does it say how large its picture is.")
    if stream.width * stream.height > limits.max_picture_pixels:
        raise Undecodable("video.too_large", f"A picture of {stream.width}x{stream.height} is too large.")
    stamps, keyframes, compressed_bytes = _stamps(container, stream, limits)
    if not stamps:
        raise Undecodable("video.no_frames", "The video stream holds no frames.")
    _require_proportion(stream, len(stamps), compressed_bytes, limits)
    base = stream.time_base or Fraction(1, 1_000_000)
    span = (stamps[-1] - stamps[0]) * base
    _require_whole(container, stream, len(stamps), span)
    duration = _duration(stream, len(stamps), span)
    if duration > limits.max_duration_s:
        limit = f"at most {limits.max_duration_s:.0f} s are accepted"
        raise Undecodable("video.too_long", f"The video lasts {float(duration):.0f} s; {limit}.")
    rate = round(float(len(stamps) / duration), 3)
    return Timeline(stamps, keyframes if indexed else [], base, duration, rate)


def packets(container: InputContainer, stream: VideoStream) -> Iterator[av.Packet]:
    """Packets up to the end, or up to where the container stops making sense."""
    try:
        yield from container.demux(stream)
    except av.error.InvalidDataError:
        return


def require_readable(found: int, wanted: int) -> None:
    """
    Raises:
        Undecodable: far fewer frames could be decoded than were looked for.
    """
    if found < _LEAST_READABLE * wanted:
        raise Undecodable(
            "video.undecodable", f"Only {found} of the {wanted} frames looked for can be decoded."
        )


def _stamps(
    container: InputContainer, stream: VideoStream, limits: DecodeLimits
) -> tuple[list[int], list[int], int]:
    """When each frame is shown, when the keyframes are, and the bytes of all packets."""
    stamps: list[int] = []
    keyframes: list[int] = []
    compressed_bytes = 0
    for packet in packets(container, stream):
        stamp = packet.pts if packet.pts is not None else packet.dts
        if packet.size and stamp is not None and not packet.is_discard:
            stamps.append(stamp)
            if packet.is_keyframe:
                keyframes.append(stamp)
            compressed_bytes += packet.size
            if len(stamps) > limits.max_frames:
                most = f"at most {limits.max_frames} are accepted"
                raise Undecodable("video.too_long", f"The video has too many frames; {most}.")
    return sorted(stamps), sorted(keyframes), compressed_bytes


def _require_proportion(
    stream: VideoStream, frames: int, compressed_bytes: int, limits: DecodeLimits
) -> None:
    """Refuse a few bytes that become very much picture. Still slides come to some 30,000 times their size."""
    decoded_bytes = frames * stream.width * stream.height * 3 // 2  # YUV 4:2:0
    if decoded_bytes > max(_ALWAYS_DECODED_BYTES, limits.max_expansion * compressed_bytes):
        times = (
            f"{decoded_bytes // compressed_bytes} times its size, at most {limits.max_expansion} are accepted"
        )
        raise Undecodable("video.too_large", f"The video would be decoded to {times}.")


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
