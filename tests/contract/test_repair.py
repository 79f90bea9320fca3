"""The daily sweep, over records that somebody meddled with."""

from __future__ import annotations

from collections.abc import Callable

from redis import Redis
from rq import Queue

from contract import keys
from contract.records import Status
from contract.repair import Repaired, repair
from contract.result import SummaryResult
from contract.store import SummaryStore

Create = Callable[..., str]


def test_a_sound_store_is_left_as_it_is(
    store: SummaryStore, queue: Queue, redis: Redis, create: Create, result: SummaryResult
) -> None:
    done, _ = create(), create()
    store.start(done, "w")
    store.succeed(done, 1, result)
    queue.remove(done)
    redis.delete(f"rq:job:{done}")
    before = {key: redis.dump(key) for key in redis.keys("*")}
    assert repair(redis, queue) == Repaired()
    assert {key: redis.dump(key) for key in redis.keys("*")} == before


def test_entries_without_a_record_give_their_place_in_the_queue_back(
    store: SummaryStore, queue: Queue, redis: Redis, create: Create
) -> None:
    gone, stays = create(), create()
    entries = keys.index_keys(store.get(gone))
    redis.delete(keys.record_key(gone), f"rq:job:{gone}")
    assert store.counts()[Status.QUEUED] == 2
    assert repair(redis, queue).entries_without_record == len(entries)
    assert store.counts()[Status.QUEUED] == 1
    assert store.position(stays) == 1


def test_a_record_that_fell_out_of_the_indexes_is_listed_and_expires_again(
    store: SummaryStore, queue: Queue, redis: Redis, create: Create, result: SummaryResult
) -> None:
    summary_id = create()
    store.start(summary_id, "w")
    store.succeed(summary_id, 1, result)
    redis.delete(keys.EXPIRIES, *redis.keys(f"{keys.INDEXES}*"))
    assert repair(redis, queue).records_without_entry == 1
    assert [record.id for record in store.page(status=Status.SUCCEEDED).records] == [summary_id]
    assert redis.zscore(keys.EXPIRIES, summary_id) is not None


def test_notes_of_jobs_that_are_over_go(
    store: SummaryStore, queue: Queue, redis: Redis, create: Create
) -> None:
    canceled, waits = create(), create()
    store.request_cancel(canceled)
    assert repair(redis, queue).jobs_without_record == 1
    assert redis.keys("rq:job:*") == [f"rq:job:{waits}".encode()]
