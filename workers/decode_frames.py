"""A few frames out of a long video, without decoding what lies between them and is not needed for them."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator

import av
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from workers.decode_timeline import Timeline, packets

_PROGRESSIVE = 1  # AV_FIELD_PROGRESSIVE: one packet is one whole picture
_SLICE, _SEI, _DELIMITER, _FILLER = 1, 6, 9, 12  # nal_unit_type, ITU-T H.264 table 7-1
_THREAD_BYTES = 72 << 20
"""A thread's stack and its allocator's arena: hardly any of it is touched, but the process's limit counts it."""

Found = tuple[int, VideoFrame]


def usable_threads(stream: VideoStream, threads: int, memory_bytes: int) -> int:
    """`threads`, or as many as half of the process's memory has room for, with a picture for each."""
    thread_bytes = _THREAD_BYTES + 4 * stream.width * stream.height
    return max(1, min(threads, memory_bytes // 2 // thread_bytes))


def nal_length_bytes(stream: VideoStream) -> int:
    """Bytes of the length before each NAL unit of H.264 as mp4 and Matroska store it; 0 for anything else."""
    head = stream.codec_context.extradata or b""
    stored_so = stream.codec_context.name == "h264" and len(head) > 4 and head[0] == 1
    return (head[4] & 3) + 1 if stored_so else 0


def is_disposable(packet: av.Packet, length_bytes: int) -> bool:
    """Whether an H.264 packet is a picture that no other one refers to (nal_ref_idc 0, section 7.4.1), and no more.

    Only H.264 says so for sure: HEVC's pictures speak for their own temporal sub-layer.
    """
    data, at, slices = memoryview(packet), 0, 0
    while at + length_bytes < len(data):
        header = data[at + length_bytes]
        kind, reference = header & 31, header >> 5 & 3
        if kind not in (_SLICE, _SEI, _DELIMITER, _FILLER) or (kind == _SLICE and reference):
            return False
        slices += kind == _SLICE
        at += length_bytes + int.from_bytes(data[at : at + length_bytes])
    return slices > 0


class FrameReader:
    """Decodes a stream forward and jumps where that is nearer.

    Every frame has the pixels that a decoding of the whole stream gives it: only what provably no other frame
    refers to is passed over, and what comes after a jump is checked against the timeline.
    """

    def __init__(
        self, container: InputContainer, stream: VideoStream, timeline: Timeline, threads: int
    ) -> None:
        """`timeline.keyframes` says where a jump can lead; without any, the stream is read from end to end."""
        self._container = container
        self._stream = stream
        self._timeline = timeline
        self._context = stream.codec_context
        self._context.thread_count = threads
        self._context.thread_type = "AUTO"
        self._length_bytes = nal_length_bytes(stream)
        progressive = self._context.field_order == _PROGRESSIVE
        self._passing_over = bool(timeline.keyframes and self._length_bytes and progressive)
        # A jump throws away what the decoder holds: a frame a thread, and those that wait for their turn to be shown.
        self._flush_frames = threads + self._context.reorder_depth
        self._position = timeline.pts[0]
        self._wanted: set[int] = set()
        self._frames = self._decoded(passing_over=self._passing_over)
        self._saw_everything = not self._passing_over

    def frames_at(self, wanted: list[int]) -> Iterator[Found]:
        """(pts, frame) of each wanted pts, ascending ones; of the next frame there is where one can't be decoded."""
        self._wanted = set(wanted)
        for target in wanted:
            keyframe = self._nearer_start(target)
            if keyframe is not None:
                self._jump(keyframe, passing_over=self._passing_over)
            found = self._next_at(target)
            if not self._saw_everything and (found is None or found[0] != target):
                found = self._from_further_back(target, found)
            if found is None:
                return
            self._position = found[0]
            yield found

    def _nearer_start(self, target: int) -> int | None:
        """The keyframe to begin at, if the decoder gets to `target` sooner from there than from where it is."""
        keyframe = _last_at_or_before(self._timeline.keyframes, target)
        if keyframe is None or keyframe <= self._position:
            return None
        pts = self._timeline.pts
        spared = bisect_left(pts, keyframe) - bisect_left(pts, self._position)
        return keyframe if spared > self._flush_frames else None

    def _jump(self, keyframe: int, *, passing_over: bool) -> None:
        self._container.seek(keyframe, stream=self._stream, backward=True)
        self._frames = self._decoded(passing_over=passing_over)
        self._saw_everything = False

    def _next_at(self, target: int) -> Found | None:
        return next((found for found in self._frames if found[0] >= target), None)

    def _from_further_back(self, target: int, found: Found | None) -> Found | None:
        """The frame at `target` itself, if a start one keyframe earlier that passes nothing over brings it.

        So it is where a keyframe only begins a gradual refresh, or where the demuxer lands behind it.
        """
        at = bisect_right(self._timeline.keyframes, target)
        if at == 0:
            return found
        self._jump(self._timeline.keyframes[max(at - 2, 0)], passing_over=False)
        again = self._next_at(target)
        return again if found is None or (again is not None and again[0] <= found[0]) else found

    def _decoded(self, *, passing_over: bool) -> Iterator[Found]:
        """(pts, frame) from here on. A broken packet costs its own frame, not the rest of the video."""
        awaited: list[int] = []  # wanted ones that are in the decoder: all of their packets are needed
        for packet in packets(self._container, self._stream):
            if packet.pts in self._wanted:
                awaited.append(packet.pts)
            needed = awaited or packet.pts is None or not passing_over
            # Not given to the decoder at all: a packet that it skips would still take its turn among the threads.
            if not needed and is_disposable(packet, self._length_bytes):
                continue
            try:
                frames = packet.decode()
            except av.error.InvalidDataError:
                continue
            for frame in frames:
                stamp = frame.pts if frame.pts is not None else frame.dts
                if stamp is not None:
                    awaited = [pts for pts in awaited if pts > stamp]
                    yield stamp, frame


def _last_at_or_before(stamps: list[int], target: int) -> int | None:
    at = bisect_right(stamps, target)
    return stamps[at - 1] if at else None
