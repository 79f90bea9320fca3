"""Many at once: 200 uploads, and the ordinary requests of others while a thousand connections do nothing."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

from benchmarks.soak_probe import usage_of
from resilience.load_client import Answers, drive, get, run
from resilience.load_plan import Plan
from resilience.load_service import Running, form, submit
from resilience.load_verdict import Verdict
from visum.impatient_http import HEAD_TIMEOUT_S

MIB = 2**20
LONGEST_MS = 1000.0
PAUSE_S = 1.0
CLOSE_MARGIN_S = 10.0


def uploads_at_once(running: Running, plan: Plan, verdict: Verdict) -> None:
    """All of them begin together; none may fail, and the gateway keeps no more of each than a block."""
    request = submit(form(plan.upload_bytes))
    before = usage_of(running.gateway_pid).anonymous
    found = drive(running.url, lambda _: request, requests=plan.uploads, connections=plan.uploads)
    grown = (usage_of(running.gateway_pid).anonymous - before) / MIB
    what = f"{plan.uploads} uploads of {plan.upload_bytes / MIB:g} MiB at once"
    failed = found.failed(202)
    verdict.hold(f"{what}, failed", f"{failed} of {plan.uploads}", "0", failed == 0, failed)
    verdict.tell(f"{what}, slowest", f"{found.percentile(99) / 1000:.1f} s", found.percentile(99))
    verdict.tell(f"{what}, memory kept by the gateway", f"{grown:+.1f} MiB", grown)
    running.empty()


def crowd(running: Running, plan: Plan, verdict: Verdict) -> None:
    """Ordinary requests alone, then beside idle connections and slow senders of heads and of bodies."""
    asyncio.run(_crowd(running, plan, verdict))
    running.empty()


async def _crowd(running: Running, plan: Plan, verdict: Verdict) -> None:
    alone = await _ordinary(running.url, plan.crowd_s)
    async with _bystanders(running.url, plan) as links:
        beside = await _ordinary(running.url, plan.crowd_s)
        closed_s = await _until_closed(links)
    what = f"polls and submits beside {plan.idle:,} idle and {plan.slow} slow connections"
    failed = sum(not 200 <= answer.status < 300 for answer in beside.answers)
    verdict.hold(f"{what}, failed", f"{failed} of {len(beside.answers)}", "0", failed == 0, failed)
    tail = beside.percentile(99)
    verdict.hold(
        f"{what}, 99th percentile",
        f"{tail:.0f} ms (alone {alone.percentile(99):.0f} ms)",
        f"≤ {LONGEST_MS:g} ms",
        tail <= LONGEST_MS,
        tail,
    )
    limit = HEAD_TIMEOUT_S + CLOSE_MARGIN_S
    shown = f"after {closed_s:.0f} s" if closed_s is not None else f"not within {limit:g} s"
    verdict.hold(
        "connections that send no whole head are closed",
        shown,
        f"≤ {limit:g} s",
        closed_s is not None,
        closed_s or limit,
    )


async def _ordinary(url: str, seconds: float) -> Answers:
    """Eight clients that submit one small clip in ten requests and poll otherwise."""
    upload = submit(form(64 * 1024))
    place = (await asyncio.to_thread(drive, url, lambda _: upload, requests=2, connections=1)).locations[0]
    poll = get(place)
    began = time.perf_counter()
    turns = itertools.count()

    def numbers() -> Iterator[int]:
        while time.perf_counter() - began < seconds:
            yield next(turns)

    found = await asyncio.gather(
        *(run(url, lambda n: upload if n % 10 == 0 else poll, numbers(), began) for _ in range(8))
    )
    return Answers(time.perf_counter() - began, [answer for answers in found for answer in answers])


@asynccontextmanager
async def _bystanders(url: str, plan: Plan) -> AsyncIterator[list[asyncio.StreamReader]]:
    """Connections that send nothing, or a little of a head, or a little of a body, each second."""
    address = urlsplit(url)
    links = [
        await asyncio.open_connection(address.hostname, address.port) for _ in range(plan.idle + plan.slow)
    ]
    heads, bodies = links[plan.idle :: 2], links[plan.idle + 1 :: 2]
    for _, writer in heads:
        writer.write(b"GET /summaries HTTP/1.1\r\nHost: 127.0.0.1\r\n")
    for _, writer in bodies:
        writer.write(submit(form(MIB))[:2048])
    slow = [writer for _, writer in heads], [writer for _, writer in bodies]
    trickle = asyncio.create_task(_trickle(*slow))
    try:
        yield [reader for reader, _ in links[: plan.idle] + heads]
    finally:
        trickle.cancel()
        for _, writer in links:
            writer.close()


async def _trickle(heads: list[asyncio.StreamWriter], bodies: list[asyncio.StreamWriter]) -> None:
    while True:
        for writers, piece in ((heads, b"X-Slow: 1\r\n"), (bodies, b"\0")):
            for writer in writers:
                if not writer.is_closing():
                    writer.write(piece)
        await asyncio.sleep(PAUSE_S)


async def _until_closed(readers: list[asyncio.StreamReader]) -> float | None:
    """Seconds from now until the gateway has closed all of them; None if it does not in its time."""
    began = time.perf_counter()
    try:
        async with asyncio.timeout(HEAD_TIMEOUT_S + CLOSE_MARGIN_S):
            for reader in readers:
                await _end_of(reader)
    except TimeoutError:
        return None
    return time.perf_counter() - began


async def _end_of(reader: asyncio.StreamReader) -> None:
    try:
        await reader.read()
    except ConnectionError:
        return
