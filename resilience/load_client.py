"""A client that costs as little as it can: it shares the machine with what it measures."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from statistics import quantiles
from urllib.parse import urlsplit

from benchmarks.side_by_side import Figures, Metric

RATE = Metric("throughput", "requests/s")
MEDIAN = Metric("latency, median", "ms", higher_is_better=False)
TAIL = Metric("latency, 99th percentile", "ms", higher_is_better=False)
PATIENCE_S = 60.0


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer, `at_s` after the round's begin."""

    status: int
    seconds: float
    at_s: float
    location: str = ""
    body: bytes = b""


@dataclass
class Answers:
    """All answers of a round, and the seconds it took."""

    seconds: float
    answers: list[Answer] = field(default_factory=list)

    @property
    def statuses(self) -> Counter[int]:
        return Counter(answer.status for answer in self.answers)

    @property
    def locations(self) -> list[str]:
        return [answer.location for answer in self.answers if answer.location]

    def failed(self, wanted: int) -> int:
        """How many were not the status that was wanted; 0 stands for no answer at all."""
        return sum(answer.status != wanted for answer in self.answers)

    def percentile(self, percent: int) -> float:
        """Of the latencies, in ms."""
        return 1000 * quantiles([answer.seconds for answer in self.answers], n=100)[percent - 1]

    def figures(self) -> Figures:
        return {
            RATE: len(self.answers) / self.seconds,
            MEDIAN: self.percentile(50),
            TAIL: self.percentile(99),
        }


Build = Callable[[int], bytes]
"""The bytes of the request with this number, head and body."""


def drive(url: str, build: Build, *, requests: int, connections: int) -> Answers:
    """Send so many requests over so many connections that stay open, each sending when its last is answered."""
    return asyncio.run(_drive(url, build, requests, connections))


async def _drive(url: str, build: Build, requests: int, connections: int) -> Answers:
    numbers = iter(range(requests))
    began = time.perf_counter()
    found = await asyncio.gather(*(run(url, build, numbers, began) for _ in range(connections)))
    return Answers(time.perf_counter() - began, [answer for answers in found for answer in answers])


async def run(url: str, build: Build, numbers: Iterable[int], began: float) -> list[Answer]:
    """One client: the requests with these numbers, one after another."""
    found = []
    connection: Connection | None = None
    for number in numbers:
        request = build(number)
        sent = time.perf_counter()
        try:
            connection = connection or await Connection.open(url)
            async with asyncio.timeout(PATIENCE_S):
                status, head, body = await connection.ask(request)
        except (OSError, EOFError, TimeoutError):
            status, head, body, connection = 0, "", b"", None
        now = time.perf_counter()
        found.append(Answer(status, now - sent, now - began, header(head, "location"), body))
        if header(head, "connection") == "close" and connection is not None:
            connection.close()
            connection = None
    if connection is not None:
        connection.close()
    return found


class Connection:
    """One connection, kept open between requests."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    @classmethod
    async def open(cls, url: str) -> Connection:
        address = urlsplit(url)
        return cls(*await asyncio.open_connection(address.hostname, address.port))

    async def ask(self, request: bytes) -> tuple[int, str, bytes]:
        """Status, head and body of the answer. Raises OSError, EOFError."""
        self._writer.write(request)
        await self._writer.drain()
        head = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        length = header(head, "content-length")
        body = await self._reader.readexactly(int(length)) if length else b""
        return int(head.split(" ", 2)[1]), head, body

    def close(self) -> None:
        self._writer.close()


def header(head: str, name: str) -> str:
    """The value of a header, empty where there is none."""
    for line in head.split("\r\n")[1:]:
        key, _, value = line.partition(":")
        if key.lower() == name:
            return value.strip()
    return ""


def get(path: str) -> bytes:
    """A GET's bytes."""
    return f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode()


def post(path: str, body: bytes, content_type: str) -> bytes:
    """A POST's bytes."""
    lines = (
        f"POST {path} HTTP/1.1",
        "Host: 127.0.0.1",  # a gateway without keys answers to this machine's names alone
        f"Content-Type: {content_type}",
        f"Content-Length: {len(body)}",
    )
    head = "\r\n".join(lines) + "\r\n\r\n"
    return head.encode() + body
