"""The daily sweep: what no expiry and no worker sees is compared with the records, which are the truth.

Every write of ours is one transaction, so a crash of ours leaves nothing of this but an RQ job whose books were not
closed. The rest comes about by an operator's hand, a backup that was put back, or a fail-over to a replica that was
behind. Every repair can be repeated, and none touches a record.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, TypeVar

from redis.exceptions import WatchError
from rq.job import Job

from contract import keys, stored_videos
from contract.errors import RecordError
from contract.ids import is_id
from contract.records import SummaryRecord, decode

if TYPE_CHECKING:
    from redis import Redis
    from redis.client import Pipeline
    from rq import Queue

BATCH = 500
T = TypeVar("T")


@dataclass
class Repaired:
    """How much of each kind was put right."""

    entries_without_record: int = 0
    entries_in_the_wrong_index: int = 0
    records_without_entry: int = 0
    miscounted_videos: int = 0
    jobs_without_record: int = 0


def repair(redis: Redis, queue: Queue) -> Repaired:
    """One pass over everything that is stored. Raises RedisError."""
    done = Repaired()
    for index in list(redis.scan_iter(f"{keys.INDEXES}*", count=BATCH)):
        _drop_entries(redis, index.decode(), done)
    _drop_entries(redis, keys.EXPIRIES, done)
    for notes in _batches(redis.hscan_iter(keys.STORED_VIDEOS, count=BATCH)):
        done.miscounted_videos += _forget_videos(redis, [raw.decode() for raw, _ in notes])
    for raw_keys in _batches(redis.scan_iter(keys.record_key("*"), count=BATCH)):
        _index(redis, raw_keys, done)
    done.miscounted_videos += stored_videos.recount(redis)
    for raw_keys in _batches(redis.scan_iter(Job.key_for("*"), count=BATCH)):
        done.jobs_without_record += _drop_jobs(redis, queue, raw_keys)
    return done


def _drop_entries(redis: Redis, index: str, done: Repaired) -> None:
    """Entries of ids that have no record, or one that is elsewhere: they would hold places in the queue for ever."""
    for batch in _batches(entry.decode() for entry, _ in redis.zscan_iter(index, count=BATCH)):
        raws = redis.mget([keys.record_key(summary_id) for summary_id in batch])
        for summary_id, raw in zip(batch, raws, strict=True):
            record = _readable(raw)
            if raw is None:
                done.entries_without_record += redis.zrem(index, summary_id)
            elif record is not None and index not in _places(record):
                done.entries_in_the_wrong_index += _unless_changed(
                    redis, summary_id, raw, lambda pipe, gone=summary_id: pipe.zrem(index, gone)
                )


def _forget_videos(redis: Redis, summary_ids: list[str]) -> int:
    """Videos of summaries that are gone: their bytes would count towards their tenants' quotas for ever."""
    raws = redis.mget([keys.record_key(summary_id) for summary_id in summary_ids])
    gone = [summary_id for summary_id, raw in zip(summary_ids, raws, strict=True) if raw is None]
    with redis.pipeline() as pipe:
        for summary_id in gone:
            stored_videos.forget(pipe, summary_id)
        pipe.execute()
    return len(gone)


def _index(redis: Redis, raw_keys: list[bytes], done: Repaired) -> None:
    """Records that a listing, a count, an expiry or a quota would not find."""
    for raw in redis.mget(raw_keys):
        record = _readable(raw)
        if record is None:
            continue  # if it is there, whoever asks for it next puts it on its way to its end
        if not _is_indexed(redis, record):
            done.records_without_entry += _unless_changed(
                redis, record.id, raw, lambda pipe, found=record: _write_indexes(pipe, found)
            )
        if stored_videos.tenant_of(redis, record.id) is None:
            done.miscounted_videos += _unless_changed(
                redis, record.id, raw, lambda pipe, found=record: stored_videos.note(pipe, found)
            )


def _readable(raw: bytes | None) -> SummaryRecord | None:
    try:
        return None if raw is None else decode(raw)
    except RecordError:
        return None


def _is_indexed(redis: Redis, record: SummaryRecord) -> bool:
    with redis.pipeline(transaction=False) as pipe:
        for index in _places(record):
            pipe.zscore(index, record.id)
        return None not in pipe.execute()


def _write_indexes(pipe: Pipeline, record: SummaryRecord) -> None:
    for index, score in _places(record).items():
        pipe.zadd(index, {record.id: score})


def _unless_changed(redis: Redis, summary_id: str, raw: bytes, write: Callable[[Pipeline], object]) -> bool:
    """Write while the record is what was read: whoever changes it writes its indexes too."""
    with redis.pipeline() as pipe:
        try:
            pipe.watch(keys.record_key(summary_id))
            if pipe.get(keys.record_key(summary_id)) != raw:
                return False
            pipe.multi()
            write(pipe)
            pipe.execute()
        except WatchError:
            return False
        return True


def _places(record: SummaryRecord) -> dict[str, float]:
    """Sorted set → score, of all that a record has to be in."""
    places: dict[str, float] = dict.fromkeys(keys.index_keys(record), 0)
    if record.expires_at is not None:
        places[keys.EXPIRIES] = record.expires_at.timestamp()
    return places


def _drop_jobs(redis: Redis, queue: Queue, raw_keys: list[bytes]) -> int:
    """RQ's notes of jobs whose summary is gone or over, and that nobody runs now."""
    running = {raw.partition(b":")[0] for raw in redis.zrange(queue.started_job_registry.key, 0, -1)}
    ids = [raw.removeprefix(Job.key_for("").encode()) for raw in raw_keys]
    idle = [raw.decode() for raw in ids if is_id(raw.decode()) and raw not in running]
    return sum(_is_over(redis, job_id) and redis.delete(Job.key_for(job_id)) for job_id in idle)


def _is_over(redis: Redis, summary_id: str) -> bool:
    raw = redis.get(keys.record_key(summary_id))
    try:
        return raw is None or decode(raw).status.finished
    except RecordError:
        return False


def _batches(items: Iterable[T]) -> Iterator[list[T]]:
    items = iter(items)
    while batch := list(islice(items, BATCH)):
        yield batch
