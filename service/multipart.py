"""A `multipart/form-data` body as a stream of events, at constant memory.

Starlette's own form parser spools a whole body to disk before a handler runs, and bounds neither
its size nor its files. Here nothing is kept: a chunk comes in, what it holds comes out.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from python_multipart import MultipartParser
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import parse_options_header

from contract.errors import Code
from service.problems import ApiError

MAX_PARTS = 16
MAX_HEADERS = 8
MAX_HEADER_BYTES = 4096


@dataclass(frozen=True, slots=True)
class PartBegins:
    """A part's headers are read. `filename` is the client's own words and not to be trusted."""

    name: str
    filename: str | None


@dataclass(frozen=True, slots=True)
class PartData:
    """Some bytes of the part."""

    data: bytes


@dataclass(frozen=True, slots=True)
class PartEnds:
    """The part is complete."""


Event = PartBegins | PartData | PartEnds


def boundary_of(content_type: str | None) -> bytes:
    """The boundary that a Content-Type header names.

    Raises:
        ApiError: the body is no form (415), or its boundary is missing (400).
    """
    kind, options = parse_options_header(content_type)
    if kind != b"multipart/form-data":
        raise ApiError(
            Code.REQUEST_NOT_MULTIPART,
            "Send the video as multipart/form-data, in a field named 'file'.",
        )
    boundary = options.get(b"boundary", b"")
    if not 1 <= len(boundary) <= 70:
        raise ApiError(Code.REQUEST_MALFORMED, "The Content-Type names no valid boundary.")
    return boundary


class FormStream:
    """Feed it the body's chunks in order; each gives the events that it completes."""

    def __init__(self, boundary: bytes) -> None:
        self._events: list[Event] = []
        self._headers: dict[bytes, bytes] = {}
        self._field = self._value = b""
        self._parts = 0
        self._complete = False
        callbacks = {
            "on_part_begin": self._on_part_begin,
            "on_header_field": self._on_header_field,
            "on_header_value": self._on_header_value,
            "on_header_end": self._on_header_end,
            "on_headers_finished": self._on_headers_finished,
            "on_part_data": self._on_part_data,
            "on_part_end": self._on_part_end,
            "on_end": self._on_end,
        }
        self._parser = MultipartParser(
            boundary, callbacks, max_header_count=MAX_HEADERS, max_header_size=MAX_HEADER_BYTES
        )

    def feed(self, chunk: bytes) -> Iterator[Event]:
        """Raises ApiError (400) where the bytes are no form."""
        if self._complete:  # an epilogue, which the standard allows and nobody reads
            return
        try:
            self._parser.write(chunk)
        except FormParserError as error:
            raise ApiError(Code.REQUEST_MALFORMED, "The body is not valid multipart/form-data.") from error
        events, self._events = self._events, []
        yield from events

    def finish(self) -> None:
        """The body is over. Raises ApiError (400) if it was cut off."""
        if not self._complete:
            raise ApiError(Code.REQUEST_MALFORMED, "The body ends before the form is complete.")

    def _on_part_begin(self) -> None:
        self._parts += 1
        if self._parts > MAX_PARTS:
            raise ApiError(Code.REQUEST_MALFORMED, f"The form has more than {MAX_PARTS} parts.")
        self._headers = {}

    def _on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._field += data[start:end]

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _on_header_end(self) -> None:
        self._headers[self._field.lower()] = self._value
        self._field = self._value = b""

    def _on_headers_finished(self) -> None:
        kind, options = parse_options_header(self._headers.get(b"content-disposition", b""))
        name = options.get(b"name")
        if kind != b"form-data" or name is None:
            raise ApiError(Code.REQUEST_MALFORMED, "A part of the form has no name.")
        filename = options.get(b"filename")
        self._events.append(PartBegins(_text(name), None if filename is None else _text(filename)))

    def _on_part_data(self, data: bytes, start: int, end: int) -> None:
        self._events.append(PartData(data[start:end]))

    def _on_part_end(self) -> None:
        self._events.append(PartEnds())

    def _on_end(self) -> None:
        self._complete = True


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "replace")
