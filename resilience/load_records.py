"""Whether a poll and a page of the list cost the same with 10 summaries stored as with 100,000."""

from __future__ import annotations

import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

from redis import Redis

from benchmarks.side_by_side import Figures, take_turns
from contract.containers import Container
from contract.ids import new_id
from contract.records import Status, SummaryRecord, SummaryRequest
from contract.result import SummaryResult
from contract.store import SummaryStore
from resilience.load_client import MEDIAN, drive, get
from resilience.load_plan import Plan
from resilience.load_service import Running, running
from resilience.load_verdict import Verdict
from service.examples import RESULT

LEAST = 0.8  # of the small store's speed, in the median of the rounds
BATCH = 500
PAGE = 10  # as many as the small store has: both pages hold the same


def records(small: Running, plan: Plan, verdict: Verdict) -> None:
    """The same reads of a service with few records and of another with many, in turns."""
    small.empty()
    few, many = plan.records
    names = f"{many:,} records", f"{few:,} records"
    with (
        tempfile.TemporaryDirectory(prefix="visum-load-", dir="/tmp") as folder,
        running(Path(folder)) as large,
    ):
        services = dict(zip(names, (large, small), strict=True))
        reads = {
            name: _reads(_filled(services[name], count))
            for name, count in zip(names, (many, few), strict=True)
        }
        for what in reads[names[0]]:
            arms = {
                name: lambda _, url=service.url, path=reads[name][what]: _look(url, path, plan)
                for name, service in services.items()
            }
            row = take_turns(arms, rounds=plan.rounds).row(*names, MEDIAN)
            ratio = row.ratio
            figure = f"{row.value.median:.2f} beside {row.baseline.median:.2f} ms, ratio {ratio.median:.2f} "
            figure += f"({ratio.low:.2f}–{ratio.high:.2f})"
            key = f"{what}, {names[0]} beside {few:,}"
            verdict.hold(key, figure, f"≥ {LEAST}", ratio.median >= LEAST, ratio.median)
    small.empty()


def _filled(service: Running, count: int) -> list[str]:
    with Redis.from_url(service.redis_url) as redis:
        return fill(redis, count)


def fill(redis: Redis, count: int) -> list[str]:
    """So many more finished summaries, written as the store writes them; their ids, ascending."""
    store = SummaryStore(redis)
    result = SummaryResult.model_validate(RESULT)
    ids = []
    while len(ids) < count:
        with redis.pipeline(transaction=False) as pipe:
            for _ in range(min(BATCH, count - len(ids))):
                record = _finished(result)
                store._write(pipe, None, record)  # a hundred thousand transactions would take an hour
                ids.append(record.id)
            pipe.execute()
    return ids


def _finished(result: SummaryResult) -> SummaryRecord:
    now = datetime.now(UTC)
    summary_id = new_id(now)
    request = SummaryRequest(
        filename="a.mp4", sha256="0" * 64, size_bytes=1, container=Container.MP4, blob_key=summary_id
    )
    return SummaryRecord(
        id=summary_id,
        status=Status.SUCCEEDED,
        created_at=now,
        started_at=now,
        finished_at=now,
        expires_at=now + timedelta(days=1),
        request=request,
        result=result.model_copy(update={"id": summary_id}),
    )


def _reads(stored: list[str]) -> dict[str, str]:
    middle = sorted(stored)[len(stored) // 2]
    deep = sorted(stored)[min(PAGE, len(stored) - 1)]
    narrowed = "status=succeeded&domain=traffic"
    return {
        "poll one": f"/summaries/{middle}",
        "list, first page": f"/summaries?limit={PAGE}",
        "list, last page by status and domain": f"/summaries?limit={PAGE}&{narrowed}&cursor={deep}",
    }


def _look(url: str, path: str, plan: Plan) -> Figures:
    """
    Raises:
        RuntimeError: an answer was no 200.
    """
    found = drive(url, lambda _: get(path), requests=plan.looks, connections=1)
    if found.failed(200):
        raise RuntimeError(f"{path}: {dict(found.statuses)} where all should be 200")
    return found.figures()
