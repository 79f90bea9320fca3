"""Requests byte by byte, where a client library would be too polite."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

BOUNDARY = b"visum-test"
MP4_HEAD = b"\0\0\0\x20ftypisom\0\0\2\0isomiso2avc1mp41"
MP4 = MP4_HEAD + b"\0\0\0\x08free" + bytes(range(256)) * 16


def field(name: str, value: str) -> bytes:
    """One text part."""
    return b'--%b\r\nContent-Disposition: form-data; name="%b"\r\n\r\n%b\r\n' % (
        BOUNDARY,
        name.encode(),
        value.encode(),
    )


def file_begins(filename: str = "a.mp4") -> bytes:
    """A file part up to its first byte."""
    return (
        b'--%b\r\nContent-Disposition: form-data; name="file"; filename="%b"\r\n'
        b"Content-Type: video/mp4\r\n\r\n" % (BOUNDARY, filename.encode())
    )


FORM_ENDS = b"\r\n--%b--\r\n" % BOUNDARY


def post_head(length: int | None) -> bytes:
    """The head of a POST /summaries; chunked if no length is given."""
    size = b"Transfer-Encoding: chunked" if length is None else b"Content-Length: %d" % length
    return (
        b"POST /summaries HTTP/1.1\r\nHost: localhost\r\n"
        b"Content-Type: multipart/form-data; boundary=%b\r\n%b\r\n\r\n" % (BOUNDARY, size)
    )


def chunk(data: bytes) -> bytes:
    """One chunk of a body that does not say its length."""
    return b"%x\r\n%b\r\n" % (len(data), data)


@contextmanager
def connection(url: str) -> Iterator[socket.socket]:
    host, _, port = url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=20) as open_socket:
        yield open_socket


def status_of(open_socket: socket.socket) -> int:
    """The status code of the answer that comes next."""
    line = open_socket.makefile("rb").readline()
    return int(line.split()[1])


def eventually(what: Callable[[], bool], seconds: float = 10.0) -> None:
    """Wait until it is so; fail after the deadline."""
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "it did not come about in time"
        time.sleep(0.02)
