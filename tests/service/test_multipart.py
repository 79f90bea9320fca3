"""The form parser: the same events however the bytes are cut."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract.errors import Code
from service.multipart import MAX_PARTS, FormStream, PartBegins, PartData, PartEnds, boundary_of
from service.problems import ApiError
from tests.service.wire import BOUNDARY, FORM_ENDS, field, file_begins

# Bytes that look like boundaries, whole and in part, are what a parser stumbles over.
NASTY = st.lists(
    st.sampled_from(
        [b"\r", b"\n", b"\r\n", b"-", b"--", b"\r\n--", b"\r\n--visum", b"visum-test", b"x", b"\0"]
    ),
    max_size=12,
).map(b"".join)
CONTENT = (NASTY | st.binary(max_size=64)).filter(lambda data: b"\r\n--" + BOUNDARY not in b"\r\n" + data)


def parts(chunks: Iterable[bytes]) -> list[tuple[str, str | None, bytes]]:
    """The form's parts, put together again."""
    stream, found = FormStream(BOUNDARY), []
    for chunk in chunks:
        for event in stream.feed(chunk):
            match event:
                case PartBegins(name, filename):
                    found.append([name, filename, b"", False])
                case PartData(data):
                    found[-1][2] += data
                case PartEnds():
                    found[-1][3] = True
    stream.finish()
    assert all(complete for *_, complete in found)
    return [(name, filename, data) for name, filename, data, _ in found]


def cut(body: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(body) + 1) for place in places), len(body)]
    return [body[start:end] for start, end in pairwise(edges)]


@given(content=CONTENT, places=st.lists(st.integers(0, 2000), max_size=8))
def test_a_file_comes_through_whole_wherever_the_chunks_are_cut(content: bytes, places: list[int]) -> None:
    body = field("domain", "auto") + file_begins("clip.mp4") + content + FORM_ENDS
    assert parts(cut(body, places)) == [("domain", None, b"auto"), ("file", "clip.mp4", content)]


@given(content=CONTENT)
def test_a_file_comes_through_byte_by_byte(content: bytes) -> None:
    body = file_begins() + content + FORM_ENDS
    assert parts(bytes([byte]) for byte in body) == [("file", "a.mp4", content)]


@given(raw=st.binary(max_size=200), places=st.lists(st.integers(0, 200), max_size=4))
def test_any_bytes_are_a_form_or_a_clear_error(raw: bytes, places: list[int]) -> None:
    try:
        parts(cut(b"--" + BOUNDARY + raw, places))
    except ApiError as error:
        code = error.code
    else:
        code = Code.REQUEST_MALFORMED
    assert code is Code.REQUEST_MALFORMED


def test_a_form_that_is_cut_off_is_told() -> None:
    with pytest.raises(ApiError, match="ends before the form is complete"):
        parts([file_begins() + b"half"])


def test_the_number_of_parts_is_bounded() -> None:
    with pytest.raises(ApiError, match=f"more than {MAX_PARTS} parts"):
        parts([field("x", "1") * (MAX_PARTS + 1) + FORM_ENDS])


def test_the_size_of_a_header_is_bounded() -> None:
    with pytest.raises(ApiError, match="not valid multipart"):
        parts([file_begins("x" * 10_000) + FORM_ENDS])


def test_a_part_without_a_name_is_refused() -> None:
    with pytest.raises(ApiError, match="has no name"):
        parts([b"--" + BOUNDARY + b"\r\nContent-Type: text/plain\r\n\r\nx" + FORM_ENDS])


def test_what_follows_the_form_is_not_read() -> None:
    assert parts([field("domain", "auto")[:-2] + FORM_ENDS, b"anything at all" * 1000]) == [
        ("domain", None, b"auto")
    ]


def test_a_filename_is_utf8() -> None:
    assert parts([file_begins("Straße.mp4") + FORM_ENDS]) == [("file", "Straße.mp4", b"")]


@pytest.mark.parametrize("header", [None, "", "application/json", "multipart/mixed; boundary=x"])
def test_what_is_no_form_is_an_unsupported_type(header: str | None) -> None:
    with pytest.raises(ApiError) as caught:
        boundary_of(header)
    assert caught.value.code is Code.REQUEST_NOT_MULTIPART


@pytest.mark.parametrize("header", ["multipart/form-data", "multipart/form-data; boundary=" + "x" * 71])
def test_a_form_needs_a_boundary(header: str) -> None:
    with pytest.raises(ApiError) as caught:
        boundary_of(header)
    assert caught.value.code is Code.REQUEST_MALFORMED
