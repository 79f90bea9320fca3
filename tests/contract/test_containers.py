"""Containers told from first bytes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract.containers import SNIFF_BYTES, Container, describe, sniff

TS = (b"\x47" + b"\0" * 187) * 6
M2TS = (b"\0\0\0\0\x47" + b"\0" * 187) * 6


@pytest.mark.parametrize(
    ("head", "container"),
    [
        (b"\0\0\0\x20ftypisom\0\0\2\0", Container.MP4),
        (b"\0\0\0\x14ftypqt  \0\0\0\0", Container.MOV),
        (b"\0\0\0\x08wide\0\0\0\0mdat", Container.MOV),
        (b"\x1a\x45\xdf\xa3\x9f\x42\x82\x84webm", Container.WEBM),
        (b"\x1a\x45\xdf\xa3\xa3\x42\x82\x88matroska", Container.MATROSKA),
        (b"RIFF\0\0\0\0AVI LIST", Container.AVI),
        (b"\x00\x00\x01\xba\x44", Container.MPEG_PS),
        (TS, Container.MPEG_TS),
        (M2TS, Container.MPEG_TS),
    ],
)
def test_videos_are_known_by_their_bytes(head: bytes, container: Container) -> None:
    assert sniff(head[:SNIFF_BYTES]) is container


@pytest.mark.parametrize(
    ("head", "words"),
    [
        (b"#EXTM3U\n#EXT-X-VERSION:3\n", "an HLS playlist"),
        (b"\xef\xbb\xbf#EXTM3U\n", "an HLS playlist"),
        (b"ffconcat version 1.0\nfile '/etc/passwd'\n", "a concat script"),
        (b'<?xml version="1.0"?><MPD>', "an XML document"),
        (b"\xff\xd8\xff\xe0", "a JPEG image"),
        (b"\x89PNG\r\n\x1a\n", "a PNG image"),
        (b"GIF89a", "a GIF image"),
        (b"\0\0\0\x1cftypavif", "a still image"),
        (b"\0\0\0\x1cftypM4A ", "an audio file"),
        (b"RIFF\0\0\0\0WAVEfmt ", "a WAV audio file"),
        (b"RIFF\0\0\0\0WEBPVP8 ", "a WebP image"),
        (b"ID3\x04", "an MP3 audio file"),
        (b"file 'a.mp4'\nfile 'b.mp4'\n", "a text file"),
        (b"The free encyclopedia", "a text file"),
        (b"G" * SNIFF_BYTES, "a text file"),
        (b"\x1a\x45\xdf\xa3\x9f\x42\x82\x84none", "no video container that is known here"),
        (b"\x01\x02\x03", "no video container that is known here"),
    ],
)
def test_what_is_no_video_is_refused_by_name(head: bytes, words: str) -> None:
    assert sniff(head) is None
    assert describe(head) == words


MAGIC_WORDS = st.sampled_from(["", "####ftypisom", "####free", "####mdat", "RIFF####AVI ", "#EXTM3U\n"])


@given(MAGIC_WORDS, st.text(st.characters(codec="utf-8", exclude_categories=["Cc"])))
def test_text_is_never_a_video_whatever_its_words(start: str, text: str) -> None:
    assert sniff((start + text).encode()) is None


@given(st.binary(max_size=SNIFF_BYTES))
def test_any_bytes_get_an_answer(head: bytes) -> None:
    container = sniff(head)
    assert container is None or container.demuxer in {"mov", "matroska", "avi", "mpegts", "mpeg"}
    assert describe(head)
