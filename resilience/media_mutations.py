"""Sound videos damaged on purpose: in the header, in the index, or in the pictures, where each container keeps them."""

import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from random import Random

from resilience.media_clips import Clip

Span = tuple[int, int]
"""From this byte to before that one."""

PLACES = ("header", "index", "payload")
_MOST_CHANGES = 12
_EXTREMES = (
    0,
    1,
    0x7F,
    0x80,
    0xFF,
    0x7FFF,
    0x8000,
    0xFFFF,
    0x7FFFFFFF,
    0x80000000,
    0xFFFFFFFF,
    (1 << 63) - 1,
)


@dataclass(frozen=True)
class Mutation:
    """A damaged file and how it came about."""

    clip: Clip
    place: str
    operation: str
    number: int
    data: bytes

    @property
    def name(self) -> str:
        return f"{self.number:05d} {self.clip.name} {self.place} {self.operation}"


def mutations(clips: Sequence[Clip], count: int, seed: int) -> Iterator[Mutation]:
    """`count` of them, clips and places in turns. The same seed and clips give the same files."""
    places = [(clip, place, spans) for clip in clips for place, spans in _spans(clip).items()]
    for number in range(count):
        clip, place, spans = places[number % len(places)]
        random = Random(f"{seed} {number}")
        operation = random.choice(_OPERATIONS)
        data = operation(random, clip.data, spans)
        yield Mutation(clip, place, operation.__name__.strip("_"), number, data)


# -- operations: all of them change bytes within the spans, some move what comes after ----------------------


def _flip_bits(random: Random, data: bytes, spans: Sequence[Span]) -> bytes:
    raw = bytearray(data)
    for _ in range(random.randint(1, _MOST_CHANGES)):
        raw[_anywhere(random, spans)] ^= 1 << random.randrange(8)
    return bytes(raw)


def _random_bytes(random: Random, data: bytes, spans: Sequence[Span]) -> bytes:
    raw = bytearray(data)
    for _ in range(random.randint(1, _MOST_CHANGES)):
        raw[_anywhere(random, spans)] = random.randrange(256)
    return bytes(raw)


def _extreme_numbers(random: Random, data: bytes, spans: Sequence[Span]) -> bytes:
    raw = bytearray(data)
    for _ in range(random.randint(1, 3)):
        width, order = random.choice((1, 2, 4, 8)), random.choice("><")
        number = struct.pack(order + "Q", random.choice(_EXTREMES))
        at = _anywhere(random, spans)
        raw[at : at + width] = number[-width:] if order == ">" else number[:width]
    return bytes(raw)


def _cut_short(random: Random, data: bytes, spans: Sequence[Span]) -> bytes:
    return data[: _anywhere(random, spans)]


def _cut_out(random: Random, data: bytes, spans: Sequence[Span]) -> bytes:
    at, length = _stretch(random, data, spans)
    return data[:at] + data[at + length :]


def _repeat(random: Random, data: bytes, spans: Sequence[Span]) -> bytes:
    at, length = _stretch(random, data, spans)
    return data[: at + length] + data[at : at + length] * random.randint(1, 8) + data[at + length :]


def _insert(random: Random, data: bytes, spans: Sequence[Span]) -> bytes:
    at = _anywhere(random, spans)
    return data[:at] + random.randbytes(random.randint(1, 64)) + data[at:]


def _overwrite(random: Random, data: bytes, spans: Sequence[Span]) -> bytes:
    """A stretch of the file over another one: sound bytes in a wrong place."""
    at, length = _stretch(random, data, spans)
    source = random.randrange(len(data))
    return data[:at] + data[source : source + length] + data[at + length :]


def _erase(random: Random, data: bytes, spans: Sequence[Span]) -> bytes:
    at, length = _stretch(random, data, spans)
    return data[:at] + bytes([random.choice((0, 0xFF))]) * length + data[at + length :]


_OPERATIONS: tuple[Callable[[Random, bytes, Sequence[Span]], bytes], ...] = (
    _flip_bits,
    _random_bytes,
    _extreme_numbers,
    _cut_short,
    _cut_out,
    _repeat,
    _insert,
    _overwrite,
    _erase,
)


def _anywhere(random: Random, spans: Sequence[Span]) -> int:
    """Every byte of the spans as likely as any other."""
    at = random.randrange(sum(end - begin for begin, end in spans))
    for begin, end in spans:
        if at < end - begin:
            return begin + at
        at -= end - begin
    raise AssertionError("the spans are empty")


def _stretch(random: Random, data: bytes, spans: Sequence[Span]) -> Span:
    """(begin, length), most of them short."""
    return _anywhere(random, spans), min(1 << random.randrange(12), len(data))


# -- where a container keeps what ---------------------------------------------------------------------------


def _spans(clip: Clip) -> dict[str, list[Span]]:
    """The spans of each place; a place that this container does not have is left out."""
    find = {
        "mp4": _iso, "mov": _iso, "matroska": _ebml, "webm": _ebml, "avi": _riff, "mpegts": _packets, "vob": _packs,
    }[clip.muxer]  # fmt: skip
    found: dict[str, list[Span]] = {place: [] for place in PLACES}
    for place, begin, end in find(clip):
        found[place].append((begin, end))
    return {place: spans for place, spans in found.items() if spans}


_INDEX_BOXES = (
    b"stts",
    b"stss",
    b"stsc",
    b"stsz",
    b"stco",
    b"ctts",
    b"sidx",
    b"trun",
    b"tfhd",
    b"tfdt",
    b"mfra",
    b"elst",
)


def _iso(clip: Clip) -> Iterator[tuple[str, int, int]]:
    """Boxes: mdat holds the pictures, the tables of moov and moof say where each is and when."""
    at, data = 0, clip.data
    while at + 8 <= len(data):
        size, kind = int.from_bytes(data[at : at + 4]), data[at + 4 : at + 8]
        end = min(at + max(size, 8), len(data))
        if kind == b"mdat":
            yield "header", at, at + 8
            yield "payload", at + 8, end
        else:
            yield "header", at, end
            for box in _INDEX_BOXES:
                place = data.find(box, at, end)
                while place >= 0:
                    yield "index", place - 4, min(place - 4 + int.from_bytes(data[place - 4 : place]), end)
                    place = data.find(box, place + 4, end)
        at = end


_CLUSTER, _CUES, _SEEK_HEAD = b"\x1f\x43\xb6\x75", b"\x1c\x53\xbb\x6b", b"\x11\x4d\x9b\x74"
_INFO, _TRACKS = b"\x15\x49\xa9\x66", b"\x16\x54\xae\x6b"


def _ebml(clip: Clip) -> Iterator[tuple[str, int, int]]:
    """Elements of the segment, each up to where the next begins."""
    places = {_SEEK_HEAD: "index", _CUES: "index", _CLUSTER: "payload", _INFO: "header", _TRACKS: "header"}
    found = {0: "header"}
    for kind, place in places.items():
        # The seek head names the others: their last mention is the element, but there may be many clusters.
        at = clip.data.find(kind) if kind == _CLUSTER else clip.data.rfind(kind)
        if at >= 0:
            found[at] = place
    starts = sorted(found)
    for begin, end in pairwise([*starts, len(clip.data)]):
        yield found[begin], begin, end


def _riff(clip: Clip) -> Iterator[tuple[str, int, int]]:
    movi, idx1 = clip.data.index(b"movi"), clip.data.rindex(b"idx1")
    yield "header", 0, movi + 4
    yield "payload", movi + 4, idx1
    yield "index", idx1, len(clip.data)


def _packets(clip: Clip) -> Iterator[tuple[str, int, int]]:
    """Transport packets: tables of programs, what stands before a packet's pictures, the pictures."""
    extra = 4 if clip.container == "m2ts" else 0
    for at in range(0, len(clip.data), 188 + extra):
        sync = at + extra
        pid = int.from_bytes(clip.data[sync + 1 : sync + 3]) & 0x1FFF
        if pid < 0x100:  # FFmpeg writes streams from there on
            yield "header", at, sync + 188
        else:
            yield "index", at, sync + 24
            yield "payload", sync + 24, sync + 188


def _packs(clip: Clip) -> Iterator[tuple[str, int, int]]:
    """Program stream: pack and system headers, PES headers with their timestamps, pictures."""
    places = {0xBA: "header", 0xBB: "header", 0xE0: "index"}
    at, data = 0, clip.data
    while (at := data.find(b"\0\0\1", at)) >= 0 and at + 4 < len(data):
        place = places.get(data[at + 3])
        if place is not None:
            yield place, at, min(at + 20, len(data))
        if place == "index":
            length = int.from_bytes(data[at + 4 : at + 6])
            end = min(at + 6 + length, len(data))
            if end > at + 20:
                yield "payload", at + 20, end
        at += 4
