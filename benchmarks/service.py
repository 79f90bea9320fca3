"""The whole service: HTTP, queue, worker, and back."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from itertools import cycle, islice
from typing import Any

from benchmarks.plan import Plan
from benchmarks.processes import serving
from benchmarks.report import Breakdown, Comparison, Share
from benchmarks.side_by_side import Figures, Metric, take_turns
from benchmarks.spread import Spread
from benchmarks.subject import ClipFile, Subject
from visum.client import Client, Options

RATE = Metric("whole service", "jobs/minute")
STAGES = ("decode", "adapter", "prefill", "generate")
POLL_S = 0.05
PATIENCE_S = 300.0

Record = dict[str, Any]


class JobFailed(Exception):
    """A summary did not succeed, which makes the round worthless."""


def service(subject: Subject, plan: Plan) -> Comparison:
    """Jobs a minute with many in flight and with one at a time."""
    clips = list(islice(cycle(subject.clips), plan.service_jobs))
    ours, theirs = f"{len(clips)} in flight", "one after another"
    records: dict[str, list[Record]] = {ours: [], theirs: []}

    with serving(subject, subject.scratch / "service") as (url, _), Client(url) as client:

        def run(name: str, number: int) -> Figures:
            finished, seconds = (all_at_once if name == ours else in_turn)(client, clips)
            if number >= 0:
                records[name] += finished
            return {RATE: 60 * len(finished) / seconds}

        arms = {name: lambda number, name=name: run(name, number) for name in (theirs, ours)}
        samples = take_turns(arms, rounds=plan.service_rounds)
    return Comparison(
        key="service",
        title="The whole service",
        how=f"{len(clips)} clips as mp4 files posted to `visum serve` (one worker, settings as shipped, domain "
        "`auto`), all at once or each when the one before is done. From the first byte of the first upload to "
        "the last `finished_at`.",
        rows=(samples.row(ours, theirs, RATE),),
        breakdowns=tuple(_stages(name, records[name]) for name in (theirs, ours)),
    )


def all_at_once(client: Client, clips: Sequence[ClipFile]) -> tuple[list[Record], float]:
    """Records and the seconds from the first upload's begin to the last job's end."""
    began = time.time()
    with ThreadPoolExecutor(len(clips)) as uploads:
        ids = list(uploads.map(lambda clip: client.submit(clip.path, Options())["id"], clips))
    finished = [finish(client, summary_id) for summary_id in reversed(ids)]
    return finished, max(finished_at(record) for record in finished) - began


def in_turn(client: Client, clips: Sequence[ClipFile]) -> tuple[list[Record], float]:
    """The same one at a time; the pause until we notice that a job has ended is not counted."""
    finished, seconds = [], 0.0
    for clip in clips:
        began = time.time()
        record = finish(client, client.submit(clip.path, Options())["id"])
        seconds += finished_at(record) - began
        finished.append(record)
    return finished, seconds


def finish(client: Client, summary_id: str) -> Record:
    """The record once it is finished.

    Raises:
        JobFailed: it did not succeed, or not in time.
    """
    deadline = time.monotonic() + PATIENCE_S
    while True:
        record, _ = client.record(summary_id)
        if record["status"] == "succeeded":
            return record
        if record["status"] in ("failed", "canceled") or time.monotonic() > deadline:
            raise JobFailed(f"{summary_id} is {record['status']}: {record['error']}")
        time.sleep(POLL_S)


def finished_at(record: Record) -> float:
    """Seconds of the epoch, by the clock of this machine."""
    return datetime.fromisoformat(record["finished_at"]).timestamp()


def _stages(name: str, records: Sequence[Record]) -> Breakdown:
    timings = [record["result"]["timings_ms"] for record in records]
    waits = [_between(record, "created_at", "started_at") for record in records]
    totals = [_between(record, "created_at", "finished_at") for record in records]
    shares = [Share(name="waits in the queue", unit="ms", value=Spread.of(waits))]
    for stage in STAGES:
        value = Spread.of(timing[stage] for timing in timings)
        shares.append(Share(name=stage, unit="ms", value=value))
    shares.append(Share(name="from record to result", unit="ms", value=Spread.of(totals)))
    return Breakdown(title=f"a job, {name}", shares=tuple(shares))


def _between(record: Record, first: str, last: str) -> float:
    begin, end = (datetime.fromisoformat(record[name]) for name in (first, last))
    return 1000 * (end - begin).total_seconds()
