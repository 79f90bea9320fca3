"""Which video containers are taken, told from a file's first bytes and never from its name.

The decoder is pinned to the demuxer named here, so that a file can't choose one for itself:
FFmpeg's playlist demuxers would open other files and addresses on the uploader's behalf.
"""

from __future__ import annotations

from enum import StrEnum

SNIFF_BYTES = 1024  # enough for an EBML header and for five transport-stream packets


class Container(StrEnum):
    MP4 = "mp4"
    MOV = "mov"
    MATROSKA = "matroska"
    WEBM = "webm"
    AVI = "avi"
    MPEG_TS = "mpegts"
    MPEG_PS = "mpeg"

    @property
    def demuxer(self) -> str:
        """FFmpeg's name of the one demuxer that may open this container."""
        return _DEMUXERS[self]


_DEMUXERS = {
    Container.MP4: "mov",
    Container.MOV: "mov",
    Container.MATROSKA: "matroska",
    Container.WEBM: "matroska",
    Container.AVI: "avi",
    Container.MPEG_TS: "mpegts",
    Container.MPEG_PS: "mpeg",
}

_EBML = b"\x1a\x45\xdf\xa3"
_QUICKTIME_FIRST_BOXES = (b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot")
_STILL_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"mif1", b"msf1", b"avif", b"avis")
_AUDIO_BRANDS = (b"M4A ", b"M4B ", b"M4P ", b"F4A ", b"F4B ")
_LOOKALIKES = (
    (b"#EXTM3U", "an HLS playlist"),
    (b"ffconcat", "a concat script"),
    (b"<?xml", "an XML document"),
    (b"<MPD", "a DASH manifest"),
    (b"%PDF", "a PDF document"),
    (b"PK\x03\x04", "a ZIP archive"),
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"\x89PNG", "a PNG image"),
    (b"GIF8", "a GIF image"),
    (b"BM", "a BMP image"),
    (b"ID3", "an MP3 audio file"),
    (b"OggS", "an Ogg file"),
    (b"fLaC", "a FLAC audio file"),
)


def sniff(head: bytes) -> Container | None:
    """The container that a file with these first bytes is, or None if it is none that we take.

    `head` should be the first SNIFF_BYTES of the file, or all of a shorter one.
    """
    if _is_text(head):  # words may stand where a magic number does: "The free ..." is no QuickTime box
        return None
    if head[4:8] == b"ftyp":
        return _sniff_iso(head[8:12])
    if head[4:8] in _QUICKTIME_FIRST_BOXES:
        return Container.MOV
    if head.startswith(_EBML):
        return _sniff_ebml(head)
    if head.startswith(b"RIFF") and head[8:12] == b"AVI ":
        return Container.AVI
    if head.startswith(b"\x00\x00\x01\xba"):
        return Container.MPEG_PS
    return Container.MPEG_TS if _is_transport_stream(head) else None


def describe(head: bytes) -> str:
    """What refused bytes look like, for the sentence that a person reads."""
    brand = head[8:12] if head[4:8] == b"ftyp" else b""
    if brand in _STILL_BRANDS:
        return "a still image"
    if brand in _AUDIO_BRANDS:
        return "an audio file"
    if head.startswith(b"RIFF") and head[8:12] in (b"WAVE", b"WEBP"):
        return "a WAV audio file" if head[8:12] == b"WAVE" else "a WebP image"
    for magic, name in _LOOKALIKES:
        if head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(magic):
            return name
    return "a text file" if _is_text(head) else "no video container that is known here"


def _sniff_iso(brand: bytes) -> Container | None:
    if brand in _STILL_BRANDS or brand in _AUDIO_BRANDS:
        return None
    return Container.MOV if brand == b"qt  " else Container.MP4


def _sniff_ebml(head: bytes) -> Container | None:
    if b"webm" in head[:64]:
        return Container.WEBM
    return Container.MATROSKA if b"matroska" in head[:64] else None


def _is_transport_stream(head: bytes) -> bool:
    """Sync bytes at a steady distance: 188 bytes a packet, or 192 with a timecode before each (M2TS)."""
    for first, size in ((0, 188), (4, 192)):
        syncs = head[first::size]
        if len(syncs) >= 3 and set(syncs) == {0x47}:
            return True
    return False


def _is_text(head: bytes) -> bool:
    return bool(head) and all(byte >= 32 or byte in b"\t\r\n\f" for byte in head)
