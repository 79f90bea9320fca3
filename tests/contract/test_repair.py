"""The daily sweep, over records that somebody meddled with."""

from __future__ import annotations

import json
from collections.abc import Callable

from redis import Redis
from rq import Queue

from contract import keys
from contract.records import Status
from contract.repair import Repaired, repair
from contract.result import SummaryResult
from contract.store import SummaryStore
from contract.tenants import DEFAULT_TENANT

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


def test_an_entry_in_an_index_that_is_not_the_records_own_goes(
    store: SummaryStore, queue: Queue, redis: Redis, create: Create, result: SummaryResult
) -> None:
    done, waits = create(), create()
    store.start(done, "w")
    store.succeed(done, 1, result)
    for index in (
        keys.index_key(Status.QUEUED, None),
        keys.index_key(Status.QUEUED, None, DEFAULT_TENANT),
        keys.index_key(None, None, "rival"),
    ):
        redis.zadd(index, {done: 0})
    redis.zadd(keys.EXPIRIES, {waits: 0})
    assert repair(redis, queue).entries_in_the_wrong_index == 4
    assert store.counts()[Status.QUEUED] == store.position(waits) == 1
    assert [record.id for record in store.page(status=Status.SUCCEEDED).records] == [done]
    assert store.page(tenant="rival").records == ()
    assert redis.zscore(keys.EXPIRIES, waits) is None
    assert store.usage(DEFAULT_TENANT).unfinished == 1


def test_an_unreadable_record_keeps_its_entries(
    store: SummaryStore, queue: Queue, redis: Redis, create: Create
) -> None:
    damaged = create()
    redis.set(keys.record_key(damaged), b"garbage")
    assert repair(redis, queue) == Repaired()
    assert store.counts()[Status.QUEUED] == 1


def test_a_record_of_the_schema_before_is_indexed_again(
    store: SummaryStore, queue: Queue, redis: Redis, create: Create
) -> None:
    summary_id = create()
    stored = store.get(summary_id).model_dump(mode="json", exclude={"tenant", "request_id", "traceparent"})
    redis.set(keys.record_key(summary_id), json.dumps({**stored, "schema_version": 1}))
    redis.delete(*redis.keys(f"{keys.INDEXES}*"))
    assert repair(redis, queue).records_without_entry == 1
    assert store.position(summary_id) == 1


def test_bytes_of_a_record_that_vanished_are_its_tenants_again(
    store: SummaryStore, queue: Queue, redis: Redis, create: Create
) -> None:
    gone, _ = create(), create()
    redis.delete(keys.record_key(gone))
    assert redis.hget(keys.STORED_BYTES, DEFAULT_TENANT) == b"14"
    assert repair(redis, queue).miscounted_videos == 1
    assert redis.hget(keys.STORED_BYTES, DEFAULT_TENANT) == b"7"


def test_what_does_not_come_to_the_bytes_of_the_videos_is_counted_again(
    store: SummaryStore, queue: Queue, redis: Redis, create: Create
) -> None:
    unnoted, _ = create(), create()
    redis.hdel(keys.STORED_VIDEOS, unnoted)
    redis.hset(keys.STORED_BYTES, mapping={DEFAULT_TENANT: 1000, "rival": 5})
    assert repair(redis, queue).miscounted_videos == 3
    counted = {DEFAULT_TENANT.encode(): b"14", b"rival": b"0"}
    assert redis.hgetall(keys.STORED_BYTES) == counted


def test_notes_of_jobs_that_are_over_go(
    store: SummaryStore, queue: Queue, redis: Redis, create: Create
) -> None:
    canceled, waits = create(), create()
    store.request_cancel(canceled)
    assert repair(redis, queue).jobs_without_record == 1
    assert redis.keys("rq:job:*") == [f"rq:job:{waits}".encode()]
