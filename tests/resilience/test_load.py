"""The load's own parts: what it stores is what the product stores, and a broken promise is told."""

from __future__ import annotations

import json
from datetime import UTC, datetime

from redis import Redis

from contract import keys
from contract.queue import enqueue, open_queue
from contract.records import SummaryRecord
from contract.result import SummaryResult
from contract.store import SummaryStore
from contract.tenants import DEFAULT_TENANT
from resilience.load_client import header
from resilience.load_records import fill
from resilience.load_verdict import Verdict
from service.examples import RESULT


def _left(redis: Redis) -> set[str]:
    """The names of our keys of records and indexes, without the ids in them."""
    names = (raw.decode() for raw in redis.scan_iter("visum:*"))
    return {name.rpartition(":")[0] if name.startswith("visum:summary:") else name for name in names}


def test_filled_records_are_in_the_indexes_that_a_finished_summary_is_in(redis_url: str) -> None:
    with Redis.from_url(redis_url) as redis:
        (filled,) = fill(redis, 1)
        store, queue = SummaryStore(redis), open_queue(redis)
        record = store.get(filled)
        by_fill = {name for name in _left(redis) if name.startswith("visum:index:")}
        redis.flushall()

        fresh = SummaryRecord(id=record.id, created_at=datetime.now(UTC), request=record.request)
        store.create(fresh, enqueue=lambda pipe, job_id: enqueue(queue, job_id, pipeline=pipe), max_queued=9)
        started = store.start(record.id, worker="w")
        assert started is not None
        store.succeed(
            record.id, started.generation, SummaryResult.model_validate({**RESULT, "id": record.id})
        )
        made = {name for name in _left(redis) if name.startswith("visum:index:")}
        assert by_fill == made
        assert redis.zscore(keys.EXPIRIES, record.id) is not None


def test_as_many_records_are_filled_as_were_asked_for(redis_url: str) -> None:
    with Redis.from_url(redis_url) as redis:
        assert len(set(fill(redis, 1_201))) == 1_201
        assert redis.zcard(keys.index_key(None, None, DEFAULT_TENANT)) == 1_201


def test_a_broken_promise_is_in_the_table_and_in_the_line() -> None:
    verdict = Verdict()
    verdict.tell("told", "1", 1.0)
    verdict.hold("kept", "2", "≤ 3", True, 2.0)
    verdict.hold("broken", "4", "≤ 3", False, 4.0)
    assert "| broken | 4 | ≤ 3 | **no** |" in verdict.table()
    line = json.loads(verdict.line())
    assert (line["ok"], line["broken"]) == (False, ["broken"])
    assert line["figures"] == {"told": 1.0, "kept": 2.0, "broken": 4.0}


def test_a_header_is_found_whatever_its_case() -> None:
    head = "HTTP/1.1 202 Accepted\r\nLocation: /summaries/x\r\ncontent-length: 3\r\n"
    assert header(head, "location") == "/summaries/x"
    assert header(head, "retry-after") == ""
