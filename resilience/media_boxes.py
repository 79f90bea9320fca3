"""Bytes of containers written by hand, for the attacks that no muxer would write."""

import struct
from collections.abc import Callable, Sequence

Change = Callable[[bytes], bytes]


def box(kind: bytes, body: bytes) -> bytes:
    """An ISO base media box."""
    return struct.pack(">I4s", len(body) + 8, kind) + body


def edited(data: bytes, path: Sequence[bytes], change: Change) -> bytes:
    """`data`, a row of boxes, with the body of each box at `path` changed and all sizes right again."""
    out, at = b"", 0
    while at + 8 <= len(data):
        size, kind = struct.unpack_from(">I4s", data, at)
        body = data[at + 8 : at + size]
        if kind == path[0]:
            body = change(body) if len(path) == 1 else edited(body, path[1:], change)
        out += box(kind, body)
        at += size
    return out


def without(data: bytes, kind: bytes) -> bytes:
    """A row of boxes without those of this kind."""
    out, at = b"", 0
    while at + 8 <= len(data):
        size, found = struct.unpack_from(">I4s", data, at)
        out += b"" if found == kind else data[at : at + size]
        at += size
    return out


def patched(at: int, new: bytes) -> Change:
    """Bytes overwritten at a place of a box's body."""
    return lambda body: body[:at] + new + body[at + len(new) :]


def alias(path: bytes) -> bytes:
    """An entry of `dref` that says the pictures are in another file: Macintosh's record, as QuickTime wrote it."""
    record = bytes(10) + bytes(28) + bytes(12) + bytes([4]) + b"clip".ljust(63, b"\0") + bytes(16)
    record += (
        struct.pack(">HH", 1, 1) + bytes(16) + struct.pack(">HH", 2, len(path)) + path + bytes(len(path) % 2)
    )
    return box(b"alis", bytes(4) + record + struct.pack(">hH", -1, 0))


def chunk(kind: bytes, body: bytes) -> bytes:
    """A RIFF chunk."""
    return kind + struct.pack("<I", len(body)) + body + bytes(len(body) % 2)


def avi(
    pictures: Sequence[bytes],
    fourcc: bytes,
    *,
    size: tuple[int, int] = (64, 64),
    rate: int = 8,
    scale: int = 1,
    subtitle: bytes | None = None,
) -> bytes:
    """An AVI of these coded pictures, with or without a file of subtitles inside."""
    width, height = size
    streams = 1 if subtitle is None else 2
    header = struct.pack("<14I", 125_000, 0, 0, 0x10, len(pictures), 0, streams, 0, width, height, 0, 0, 0, 0)
    form = struct.pack("<IIIHH4sIIIII", 40, width, height, 1, 24, fourcc, 0, 0, 0, 0, 0)
    lists = chunk(b"avih", header) + _stream(b"vids", fourcc, rate, scale, len(pictures), form)
    movi = b"".join(chunk(b"00dc", picture) for picture in pictures)
    if subtitle is not None:
        lists += _stream(b"txts", bytes(4), rate, scale, 1, b"")
        inner = b"GAB2\0" + struct.pack("<HIHI", 2, 0, 4, len(subtitle)) + subtitle
        movi = chunk(b"01tx", inner) + movi
    body = chunk(b"LIST", b"hdrl" + lists) + chunk(b"LIST", b"movi" + movi)
    return chunk(b"RIFF", b"AVI " + body)


def _stream(kind: bytes, fourcc: bytes, rate: int, scale: int, length: int, form: bytes) -> bytes:
    header = struct.pack(
        "<4s4sIHHIIIIIIiI4H", kind, fourcc, 0, 0, 0, 0, scale, rate, 0, length, 0, -1, 0, 0, 0, 64, 64
    )
    return chunk(b"LIST", b"strl" + chunk(b"strh", header) + chunk(b"strf", form))


def h264_picture(width: int, height: int) -> bytes:
    """Parameter sets of H.264 for a picture of this size, and the beginning of one (ITU-T H.264, section 7.3)."""
    sizes = _unsigned(width // 16 - 1) + _unsigned(height // 16 - 1)
    sequence = "1" + "1" + _unsigned(2) + _unsigned(1) + "0" + sizes + "1" + "0" + "0" + "0"
    picture = "1" + "1" + "0" + "0" + "1" + "1" + "1" + "0" + "00" + "1" + "1" + "1" + "0" + "0" + "0"
    units = (
        b"\x67\x42\x00\x33" + _bytes(sequence),
        b"\x68" + _bytes(picture),
        b"\x65\x88\x84" + bytes(range(1, 200)),
    )
    return b"".join(b"\0\0\0\1" + unit for unit in units)


def _unsigned(value: int) -> str:
    """Exp-Golomb, section 9.1."""
    bits = f"{value + 1:b}"
    return "0" * (len(bits) - 1) + bits


def _bytes(bits: str) -> bytes:
    bits += "1"
    bits += "0" * (-len(bits) % 8)
    return int(bits, 2).to_bytes(len(bits) // 8)
