"""Whether a poll and a page of the list cost the same with 10 summaries stored as with 100,000."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from redis import Redis

from contract.containers import Container
from contract.ids import new_id
from contract.records import Status, SummaryRecord, SummaryRequest
from contract.result import SummaryResult
from contract.store import SummaryStore
from resilience.load_client import drive, get
from resilience.load_plan import Plan
from resilience.load_service import Running
from resilience.load_verdict import Verdict
from service.examples import RESULT

MOST = 1.5  # the slowest level's median beside the first one's: what is flat moves by the machine's noise
REPEATS = 3
BATCH = 500
PAGE = 10  # as many as there are at the first level: every level's page holds the same


def records(running: Running, plan: Plan, verdict: Verdict) -> None:
    """Time the same three reads at every level."""
    running.empty()
    stored: list[str] = []
    found: dict[str, list[float]] = {}
    with Redis.from_url(running.redis_url) as redis:
        for level in plan.levels:
            stored += fill(redis, level - len(stored))
            for what, path in _reads(stored).items():
                found.setdefault(what, []).append(_median(running.url, path, plan))
    for what, medians in found.items():
        ratio = max(medians) / medians[0]
        shown = ", ".join(f"{median:.2f}" for median in medians)
        levels = f"{plan.levels[0]:,} to {plan.levels[-1]:,} records"
        verdict.hold(
            f"{what}, {levels}", f"median {shown} ms, ratio {ratio:.2f}", f"≤ {MOST}", ratio <= MOST, ratio
        )
    running.empty()


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


def _median(url: str, path: str, plan: Plan) -> float:
    """The best of a few medians: what else runs on the machine only ever adds."""
    medians = []
    for _ in range(REPEATS):
        found = drive(url, lambda _: get(path), requests=plan.looks, connections=1)
        if found.failed(200):
            raise RuntimeError(f"{path}: {dict(found.statuses)} where all should be 200")
        medians.append(found.percentile(50))
    return min(medians)
