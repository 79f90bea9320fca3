"""Leases and places of jobs, looked at by hand: the clocks of the machines do not count."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from redis import Redis
from rq import Queue
from rq.job import Job
from rq.worker import SimpleWorker

from contract.ids import new_id
from contract.queue import enqueue, open_queue
from contract.records import Progress, Stage, Status, SummaryRecord, SummaryRequest
from contract.store import SummaryStore
from workers.recovery import Recovery
from workers.retries import FIRST_PAUSE_S, LONGEST_PAUSE_S, pause_s


@pytest.fixture
def redis(redis_url: str) -> Iterator[Redis]:
    with Redis.from_url(redis_url) as client:
        yield client


@pytest.fixture
def queue(redis: Redis) -> Queue:
    return open_queue(redis)


@pytest.fixture
def store(redis: Redis) -> SummaryStore:
    return SummaryStore(redis)


@pytest.fixture
def recovery(queue: Queue, store: SummaryStore) -> Recovery:
    return Recovery(queue, store, stranded_s=60)


@pytest.fixture
def queued(store: SummaryStore, queue: Queue) -> str:
    """A summary that waits."""
    now = datetime.now(UTC)
    summary_id = new_id(now)
    request = SummaryRequest(
        filename="a.mp4", sha256="0" * 64, size_bytes=7, container="mp4", blob_key=summary_id
    )
    store.create(
        SummaryRecord(id=summary_id, created_at=now, request=request),
        enqueue=lambda pipe, job_id: enqueue(queue, job_id, pipeline=pipe),
        max_queued=10,
    )
    return summary_id


def _begin(store: SummaryStore, queue: Queue, summary_id: str, lease_s: int) -> None:
    """What a worker writes when it takes a job."""
    worker = SimpleWorker([queue], connection=queue.connection, name="w")
    worker.get_heartbeat_ttl = lambda job: lease_s  # type: ignore[method-assign]
    queue.connection.lmove(queue.key, queue.intermediate_queue_key)
    job = queue.fetch_job(summary_id)
    assert isinstance(job, Job)
    worker.prepare_execution(job)
    store.start(summary_id, "w")
    store.progress(summary_id, 1, Progress(stage=Stage.DECODE))


@pytest.mark.parametrize("jump_s", [86_400, -86_400])
def test_a_clock_that_jumps_takes_nobodys_job(
    recovery: Recovery,
    store: SummaryStore,
    queue: Queue,
    queued: str,
    monkeypatch: pytest.MonkeyPatch,
    jump_s: int,
) -> None:
    _begin(store, queue, queued, lease_s=30)
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + jump_s)
    recovery.run()
    recovery.run()
    assert store.get(queued).status is Status.RUNNING
    assert queue.job_ids == []


def test_a_lease_that_redis_let_expire_is_over_whatever_the_clocks_say(
    recovery: Recovery, store: SummaryStore, queue: Queue, queued: str, redis: Redis
) -> None:
    _begin(store, queue, queued, lease_s=30)
    (lease,) = redis.keys("rq:execution:*")
    redis.delete(lease)
    recovery.run()
    record = store.get(queued)
    assert record.status is Status.QUEUED
    assert record.setback is not None
    assert "while decoding it" in record.setback.message
    assert queue.job_ids == [queued]


def test_a_job_whose_next_try_is_due_goes_back_into_the_queue(
    recovery: Recovery, queue: Queue, queued: str, redis: Redis
) -> None:
    redis.delete(queue.key)
    redis.zadd(queue.scheduled_job_registry.key, {queued: time.time() - 1})
    recovery.run()
    assert queue.job_ids == [queued]
    assert redis.zcard(queue.scheduled_job_registry.key) == 0


def test_a_next_try_noted_by_a_clock_of_tomorrow_does_not_wait_for_tomorrow(
    recovery: Recovery, queue: Queue, queued: str, redis: Redis
) -> None:
    redis.delete(queue.key)
    tomorrow = datetime.now(UTC) + timedelta(days=1)
    redis.zadd(queue.scheduled_job_registry.key, {queued: tomorrow.timestamp()})
    recovery.run()
    assert queue.job_ids == [queued]


def test_a_job_that_waits_for_its_next_try_is_left_alone(
    recovery: Recovery, queue: Queue, queued: str, redis: Redis
) -> None:
    redis.delete(queue.key)
    redis.zadd(queue.scheduled_job_registry.key, {queued: time.time() + 30})
    for _ in range(3):
        recovery.run()
    assert queue.job_ids == []


def test_two_workers_give_a_summary_that_lost_its_job_one_new_one(
    queue: Queue, store: SummaryStore, queued: str, redis: Redis
) -> None:
    redis.delete(queue.key, f"rq:job:{queued}")
    both = [Recovery(queue, store, stranded_s=60) for _ in range(2)]
    for _ in range(2):
        for recovery in both:
            recovery.run()
    assert queue.job_ids == [queued]


def test_pauses_double_up_to_a_bound_and_differ() -> None:
    assert all(FIRST_PAUSE_S / 2 <= pause_s(1) <= FIRST_PAUSE_S for _ in range(50))
    assert all(FIRST_PAUSE_S <= pause_s(2) <= 2 * FIRST_PAUSE_S for _ in range(50))
    assert max(pause_s(30) for _ in range(50)) <= LONGEST_PAUSE_S
    assert len({pause_s(1) for _ in range(20)}) > 10


def test_a_job_that_a_third_worker_has_begun_is_not_taken_from_it_by_a_late_look(
    recovery: Recovery,
    store: SummaryStore,
    queue: Queue,
    queued: str,
    redis: Redis,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of two that saw the dead lease one takes the job over, and a third begins it before the other goes on."""
    _begin(store, queue, queued, lease_s=30)
    (lease,) = redis.keys("rq:execution:*")
    redis.delete(lease)
    found = recovery._leases()
    monkeypatch.setattr(recovery, "_leases", lambda: found)
    Recovery(queue, store, stranded_s=60).run()
    _begin(store, queue, queued, lease_s=30)
    recovery.run()
    record = store.get(queued)
    assert (record.status, record.generation) == (Status.RUNNING, 2)
    assert queue.job_ids == []
