"""The time of Redis, whatever the machine's own clock says."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from redis import Redis

from contract.clock import ServerClock
from contract.errors import Code
from contract.records import JobError, SummaryRecord
from contract.store import SummaryStore

MakeRecord = Callable[..., SummaryRecord]


@pytest.mark.parametrize("jump_s", [86_400, -86_400])
def test_a_wall_clock_that_jumps_moves_nothing(
    redis: Redis, monkeypatch: pytest.MonkeyPatch, jump_s: int
) -> None:
    clock, real = ServerClock(redis), time.time
    before = clock()
    monkeypatch.setattr(time, "time", lambda: real() + jump_s)
    assert timedelta() <= clock() - before < timedelta(seconds=30)


def test_it_is_the_time_of_redis(redis: Redis) -> None:
    seconds, _ = redis.time()
    assert abs(ServerClock(redis)() - datetime.fromtimestamp(seconds, UTC)) < timedelta(seconds=5)


def test_a_store_reckons_by_it(redis: Redis, record: MakeRecord, monkeypatch: pytest.MonkeyPatch) -> None:
    noon = datetime(2026, 1, 1, 12, tzinfo=UTC)
    monkeypatch.setattr(ServerClock, "__call__", lambda clock: noon)
    store, new = SummaryStore(redis), record()
    store.create(new, enqueue=lambda pipe, job_id: None, max_queued=9)
    store.start(new.id, "w")
    store.fail(new.id, 1, JobError(code=Code.VIDEO_UNDECODABLE, message="It is broken."))
    after = store.get(new.id)
    assert (after.started_at, after.finished_at) == (noon, noon)
    assert store.now() == noon
