"""Files made by hand to get at what is not theirs, or to cost more than they may."""

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from io import BytesIO
from pathlib import Path
from random import Random

import av
import numpy as np

from contract.errors import Code
from resilience.media_boxes import alias, avi, box, edited, h264_picture, patched, without
from resilience.media_clips import add_video, write

FRAMES = "frames"
"""The verdict on a file that was decoded."""

_REFUSED = frozenset({Code.VIDEO_UNSUPPORTED_CONTAINER})
_DAMAGED = frozenset({Code.VIDEO_UNDECODABLE, Code.VIDEO_NO_FRAMES, Code.VIDEO_NO_VIDEO_STREAM})
_TOO_LONG = frozenset({Code.VIDEO_TOO_LONG})
_TOO_LARGE = frozenset({Code.VIDEO_TOO_LARGE})
_PLAYED = frozenset({FRAMES})
_ANNOUNCED = _TOO_LARGE | _DAMAGED | _PLAYED
"""What a container says of a picture's size binds nobody: the coded picture's own counts."""

_SAMPLES = (b"moov", b"trak", b"mdia", b"minf", b"stbl")
_HOURS_10 = 36_000
_STYLES = b"""[Script Info]\r\nScriptType: v4.00+\r\n\r\n[V4+ Styles]\r\nFormat: Name, Fontname\r
Style: Default,%s\r\n\r\n[Events]\r\nFormat: Layer, Start, End, Style, Name, Text\r\n"""


@dataclass(frozen=True)
class Bait:
    """What an attack reaches for: a file that holds a secret, and a port where somebody listens."""

    secret: Path
    port: int

    @property
    def addresses(self) -> list[str]:
        """Each way to name the two that FFmpeg has a protocol for."""
        web = f"127.0.0.1:{self.port}"
        secret = self.secret
        files = (str(secret), f"file:{secret}", f"subfile,,start,0,end,0,,:{secret}", f"concat:{secret}")
        return [
            *files,
            f"http://{web}/a.ts",
            f"tcp://{web}",
            f"rtmp://{web}/a",
            f"udp://{web}",
            f"tls://{web}",
        ]


@dataclass(frozen=True)
class Attack:
    """`verdicts` are the only right ones; `kind` is the row of the table that it counts in."""

    kind: str
    name: str
    data: bytes
    verdicts: frozenset[str]


def attacks(bait: Bait) -> Iterator[Attack]:
    """All of them."""
    yield from _playlists(bait)
    yield from references(bait)
    yield from _pictures_too_large()
    yield from _too_long()
    yield from _bombs()
    yield from _timestamps()
    yield from _durations()
    yield from _structures()


def hls(address: str) -> bytes:
    """A playlist of one address."""
    return f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{address}\n#EXT-X-ENDLIST\n".encode()


def concat(address: str) -> bytes:
    """A concat script of one file."""
    return f"ffconcat version 1.0\nfile '{address}'\n".encode()


def _playlists(bait: Bait) -> Iterator[Attack]:
    for address in bait.addresses:
        yield Attack("playlist", f"hls {address}", hls(address), _REFUSED)
        yield Attack("playlist", f"concat {address}", concat(address), _REFUSED)
        dash = f'<?xml version="1.0"?><MPD><Period><BaseURL>{address}</BaseURL></Period></MPD>'
        yield Attack("playlist", f"dash {address}", dash.encode(), _REFUSED)
        # Behind the first bytes of a video: whoever goes by the name or by a guess finds the playlist.
        for head in (b"\0\0\0\x18ftypisom", b"\x1a\x45\xdf\xa3\x9f\x42\x82\x84webm", b"RIFF\xff\0\0\0AVI "):
            yield Attack("playlist", f"hls {address} behind {head!r}", head + b"\n" + hls(address), _DAMAGED)
    itself = "\n".join(["#EXTM3U", *["#EXTINF:1,\nitself.m3u8"] * 3])
    yield Attack("playlist", "hls of itself", itself.encode(), _REFUSED)
    yield Attack(
        "playlist", "hls behind a byte order mark", b"\xef\xbb\xbf" + hls(bait.addresses[0]), _REFUSED
    )
    yield Attack("playlist", "concat of itself", concat("itself"), _REFUSED)
    session = f"v=0\no=- 0 0 IN IP4 127.0.0.1\nc=IN IP4 127.0.0.1\nm=video {bait.port} RTP/AVP 96\n"
    yield Attack("playlist", "session description", session.encode(), _REFUSED)
    # A playlist whose lines put 0x47 where a transport stream has its sync bytes.
    lines = (b"#" + b"\x01" * 186 + b"\x47") * 6
    yield Attack("playlist", "hls as a transport stream", b"\x47" + lines + hls(bait.addresses[0]), _DAMAGED)


def references(bait: Bait) -> Iterator[Attack]:
    """Real videos, by their bytes, that name something else to be opened."""
    mov, jpeg = write("mov", "h264"), _jpeg()
    for address in bait.addresses:
        for entry in (alias(address.encode()), box(b"url ", bytes(4) + address.encode() + b"\0")):
            kind = entry[4:8].decode()
            data = elsewhere(mov, entry)
            yield Attack("reference", f"mov {kind} {address}", data, _PLAYED | _DAMAGED)
        for kind, subtitle in (("hls", hls(address)), ("concat", concat(address))):
            data = avi([jpeg] * 8, b"MJPG", subtitle=subtitle)
            yield Attack("reference", f"avi with subtitles that are {kind} {address}", data, _PLAYED)
        yield Attack(
            "reference", f"matroska that attaches and styles {address}", _matroska_extras(address), _PLAYED
        )
    yield Attack("reference", "mp4 with subtitles", _mp4_subtitles(), _PLAYED)


def elsewhere(mov: bytes, entry: bytes) -> bytes:
    """A MOV whose pictures are in the file that `entry` names."""
    return edited(
        mov, (b"moov", b"trak", b"mdia", b"minf", b"dinf", b"dref"), lambda _: bytes(4) + b"\0\0\0\1" + entry
    )


def _pictures_too_large() -> Iterator[Attack]:
    mp4, matroska = write("mp4", "h264"), write("matroska", "vp9")
    wide = edited(mp4, (*_SAMPLES, b"stsd"), patched(40, b"\xff\xff\xff\xff"))
    yield Attack("large picture", "mp4 of 65535x65535", wide, _ANNOUNCED)
    at = matroska.index(b"\xb0\x81\x40\xba\x81\x40")  # PixelWidth and PixelHeight of 64
    huge = matroska[:at] + b"\xb0\x83\x01\x86\xa0\xba\x83\x01\x86\xa0" + matroska[at + 6 :]
    yield Attack("large picture", "matroska of 100000x100000", huge, _ANNOUNCED)
    yield Attack(
        "large picture",
        "avi of 100000x100000",
        avi([_jpeg()] * 8, b"MJPG", size=(100_000, 100_000)),
        _ANNOUNCED,
    )
    for side in (16_384, 100_000):
        picture = h264_picture(side, side)
        yield Attack(
            "large picture", f"h264 of {side}x{side} in a 64x64 avi", avi([picture] * 8, b"H264"), _DAMAGED
        )
    jpeg = _jpeg()
    at = jpeg.index(b"\xff\xc0") + 5
    grown = jpeg[:at] + struct.pack(">HH", 65_500, 65_500) + jpeg[at + 4 :]
    yield Attack("large picture", "jpeg of 65500x65500 in a 64x64 avi", avi([grown] * 8, b"MJPG"), _DAMAGED)
    late = [jpeg, jpeg, grown, grown, grown, grown, grown, grown]
    yield Attack("large picture", "jpeg that grows to 65500x65500", avi(late, b"MJPG"), _DAMAGED)
    needle = write("matroska", "mpeg4", size=(16, 4096))
    yield Attack("large picture", "a picture of 16x4096", needle, _DAMAGED)


def _too_long() -> Iterator[Attack]:
    yield Attack("too long", "two stills ten hours apart", _stills(_HOURS_10), _TOO_LONG)
    yield Attack("too long", "two stills a century apart", _stills(3_155_760_000), _TOO_LONG)
    mp4 = write("mp4", "h264", frames=1)
    still = edited(mp4, (*_SAMPLES, b"stts"), lambda _: struct.pack(">IIII", 0, 1, 1, _HOURS_10 * 16_384))
    yield Attack("too long", "one still of ten hours", still, _TOO_LONG | _PLAYED | _DAMAGED)
    slow = avi([_jpeg()] * 4, b"MJPG", rate=1, scale=_HOURS_10)
    yield Attack("too long", "avi of a frame in ten hours", slow, _TOO_LONG | _DAMAGED)


def _bombs() -> Iterator[Attack]:
    yield Attack("bomb", "vp9 that shows one 4K picture 50000 times", _vp9_bomb(50_000), _TOO_LARGE)
    yield Attack("bomb", "vp9 that shows one 4K picture 1000001 times", _vp9_bomb(1_000_001), _TOO_LONG)
    mp4 = write("mp4", "h264")
    billions = edited(mp4, (*_SAMPLES, b"stsz"), lambda _: struct.pack(">III", 0, 1, 0xFFFFFFFF))
    billions = edited(billions, (*_SAMPLES, b"stts"), lambda _: struct.pack(">IIII", 0, 1, 0xFFFFFFFF, 1))
    yield Attack(
        "bomb",
        "mp4 of four billion samples of a byte",
        billions,
        _DAMAGED | _TOO_LONG | _TOO_LARGE | {Code.DECODE_TIMEOUT},
    )
    zeros = zlib.compress(box(b"free", bytes(512 << 20)), 9)
    packed = box(b"dcom", b"zlib") + box(b"cmvd", struct.pack(">I", 512 << 20) + zeros)
    yield Attack(
        "bomb", "mov whose header unpacks to 512 MiB", _movie(box(b"cmov", packed)), _TOO_LARGE | _DAMAGED
    )


def _timestamps() -> Iterator[Attack]:
    random = Random(0)
    stream = bytearray(write("mpegts", "h264"))
    at = 0
    while (at := stream.find(b"\0\0\1\xe0", at)) >= 0:
        stream[at + 9 : at + 14] = random.randbytes(5)  # where the PES header has its presentation time
        at += 14
    odd = _TOO_LONG | _DAMAGED | _PLAYED
    yield Attack("timestamps", "transport stream at random times", bytes(stream), odd)
    mp4 = write("mp4", "h264")
    offsets = struct.pack(">II", 0x01000000, 12) + b"".join(
        struct.pack(">Ii", 1, random.randrange(-(1 << 31), 1 << 31)) for _ in range(12)
    )
    yield Attack(
        "timestamps", "mp4 shown in random order", edited(mp4, (*_SAMPLES, b"ctts"), lambda _: offsets), odd
    )
    for name, delta in (("backwards", -512), ("by 2^31", 1 << 31), ("by 0", 0)):
        times = struct.pack(">III", 0, 1, 12) + struct.pack(">q", delta)[4:]
        yield Attack(
            "timestamps",
            f"mp4 that steps {name}",
            edited(mp4, (*_SAMPLES, b"stts"), lambda _, times=times: times),
            odd,
        )
    for media_time in (-1, -(1 << 31), (1 << 31) - 1):
        entry = struct.pack(">IIIiI", 0, 1, 0xFFFFFFFF, media_time, 0x10000)
        yield Attack(
            "timestamps",
            f"mp4 whose edit begins at {media_time}",
            edited(mp4, (b"moov", b"trak", b"edts", b"elst"), lambda _, entry=entry: entry),
            odd,
        )
    cluster = bytearray(write("matroska", "vp8"))
    at = cluster.index(b"\x1f\x43\xb6\x75")
    while (at := cluster.find(b"\xa3", at)) >= 0 and at + 6 < len(cluster):
        cluster[at + 3 : at + 5] = random.randbytes(2)
        at += 6
    yield Attack("timestamps", "matroska at random times", bytes(cluster), odd)


def _durations() -> Iterator[Attack]:
    mp4 = write("mp4", "h264")
    headers = ((b"moov", b"mvhd"), (b"moov", b"trak", b"mdia", b"mdhd"))
    for name, scale, duration in (
        ("duration of 0", 8, 0),
        ("duration of -1", 8, 0xFFFFFFFF),
        ("duration of -2^31", 8, 0x80000000),
        ("clock of 0", 0, 100),
        ("clock of -1", 0xFFFFFFFF, 100),
    ):
        data = mp4
        for path in headers:
            data = edited(data, path, patched(12, struct.pack(">II", scale, duration)))
        yield Attack("duration", f"mp4 with a {name}", data, _PLAYED | _DAMAGED | _TOO_LONG)
    matroska = write("matroska", "vp8")
    at = matroska.index(b"\x44\x89\x88") + 3
    for value in (0.0, -1.0, -1e300, float("nan"), float("inf"), 1e300):
        data = matroska[:at] + struct.pack(">d", value) + matroska[at + 8 :]
        yield Attack("duration", f"matroska with a duration of {value}", data, _PLAYED | _DAMAGED | _TOO_LONG)
    at = matroska.index(b"\x2a\xd7\xb1\x83") + 4
    data = matroska[:at] + bytes(3) + matroska[at + 3 :]
    yield Attack("duration", "matroska with a clock of 0", data, _PLAYED | _DAMAGED)
    for rate, scale in ((0, 0), (0, 1), (1, 0), (0xFFFFFFFF, 1), (1, 0xFFFFFFFF), (0xFFFFFFFF, 0xFFFFFFFF)):
        data = avi([_jpeg()] * 8, b"MJPG", rate=rate, scale=scale)
        yield Attack("duration", f"avi of {rate}/{scale} frames/s", data, _PLAYED | _DAMAGED | _TOO_LONG)


def _structures() -> Iterator[Attack]:
    mp4, matroska = write("mp4", "h264"), write("matroska", "h264")
    yield Attack("structure", "mp4 without moov", without(mp4, b"moov"), _DAMAGED)
    yield Attack("structure", "mp4 without pictures", without(mp4, b"mdat"), _DAMAGED)
    yield Attack(
        "structure", "mp4 with a moov of no size", mp4[: mp4.index(b"moov") - 4] + box(b"moov", b""), _DAMAGED
    )
    nested = b""
    for _ in range(20_000):
        nested = box(b"moov", nested)
    yield Attack("structure", "moov in moov 20000 times", mp4[:32] + nested, _DAMAGED)
    yield Attack(
        "structure",
        "matroska with a segment of no end",
        matroska[: matroska.index(b"\x1f\x43\xb6\x75")],
        _DAMAGED,
    )
    deep = (
        b"\x1a\x45\xdf\xa3\x8b\x42\x82\x88matroska\x18\x53\x80\x67\x01"
        + b"\xff" * 7
        + b"\x12\x54\xc3\x67\xff" * 20_000
    )
    yield Attack("structure", "matroska of tags in tags", deep, _DAMAGED)
    tracks = edited(mp4, (b"moov",), lambda body: body + body[body.index(b"trak") - 4 :] * 300)
    yield Attack("structure", "mp4 of 300 tracks", tracks, _TOO_LARGE)
    for codec, name in (
        (b"rawv", "rawvideo"),
        (b"WMV3", "wmv3"),
        (b"FLV1", "flv"),
        (b"HFYU", "huffyuv"),
        (b"tscc", "tscc"),
    ):
        yield Attack("structure", f"avi coded as {name}", avi([bytes(64 * 64 * 3)] * 8, codec), _DAMAGED)
    for size in (0, 1, 7, 11):
        yield Attack("structure", f"{size} bytes of an mp4", mp4[:size], _REFUSED | _DAMAGED)


def _movie(body: bytes) -> bytes:
    return box(b"ftyp", b"qt  \0\0\2\0qt  ") + box(b"moov", body)


def _jpeg() -> bytes:
    """One coded picture, taken out of an AVI."""
    data = write("avi", "mjpeg", frames=1)
    at = data.index(b"00dc", data.index(b"movi"))
    return data[at + 8 : at + 8 + int.from_bytes(data[at + 4 : at + 8], "little")]


def _matroska_extras(address: str) -> bytes:
    file = BytesIO()
    with av.open(file, "w", format="matroska") as container:
        container.metadata["title"] = address
        container.add_attachment(f"../../{address}", "font/ttf", hls(address))
        subtitles = container.add_stream("ass")
        subtitles.codec_context.subtitle_header = _STYLES % address.encode()
        add_video(container, "h264")
        container.mux(
            _packet(subtitles, b"0,0,Default,,{\\fn" + address.encode() + b"}a", 0, Fraction(1, 1000))
        )
    return file.getvalue()


def _mp4_subtitles() -> bytes:
    file = BytesIO()
    with av.open(file, "w", format="mp4") as container:
        subtitles = container.add_stream("mov_text")
        subtitles.codec_context.subtitle_header = _STYLES % b"Arial"
        add_video(container, "h264")
        container.mux(_packet(subtitles, b"\xff\xffa", 0, Fraction(1, 1000)))
    return file.getvalue()


def _stills(seconds: int) -> bytes:
    """Two pictures with so long between them."""
    file = BytesIO()
    with av.open(file, "w", format="matroska") as container:
        stream = container.add_stream("mjpeg", rate=1)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuvj420p"
        stream.codec_context.time_base = Fraction(1, 1)
        for second in (0, seconds):
            frame = av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), format="rgb24")
            frame.pts, frame.time_base = second, Fraction(1, 1)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return file.getvalue()


def _vp9_bomb(shown: int) -> bytes:
    """One picture of 4096x2160, then frames of one byte that each say "show that one again"."""
    file = BytesIO()
    with av.open(file, "w", format="webm") as container:
        stream = container.add_stream(
            "libvpx-vp9", rate=60, options={"lag-in-frames": "0", "deadline": "realtime"}
        )
        stream.width, stream.height, stream.pix_fmt = 4096, 2160, "yuv420p"
        frame = av.VideoFrame(4096, 2160, "yuv420p")
        frame.pts, frame.time_base = 0, Fraction(1, 60)
        container.mux(stream.encode(frame))
        for number in range(1, shown):
            container.mux(_packet(stream, b"\x88", number, Fraction(1, 60)))
    return file.getvalue()


def _packet(stream: av.stream.Stream, data: bytes, at: int, base: Fraction) -> av.Packet:
    packet = av.Packet(data)
    packet.stream, packet.time_base = stream, base
    packet.pts = packet.dts = at
    packet.duration = 1
    return packet
