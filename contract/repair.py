"""The daily sweep: what no expiry and no worker sees is compared with the records, which are the truth.

Every write of ours is one transaction, so a crash of ours leaves nothing of this but an RQ job whose books were not
closed. The rest comes about by an operator's hand, a backup that was put back, or a fail-over to a replica that was
behind. Every repair can be repeated, and none touches a record.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, TypeVar

from redis.exceptions import WatchError
from rq.job import Job

from contract import keys
from contract.errors import RecordError
from contract.ids import is_id
from contract.records import SummaryRecord, decode, encode

if TYPE_CHECKING:
    from redis import Redis
    from rq import Queue

BATCH = 500
T = TypeVar("T")


@dataclass
class Repaired:
    """How much of each kind was put right."""

    entries_without_record: int = 0
    records_without_entry: int = 0
    jobs_without_record: int = 0


def repair(redis: Redis, queue: Queue) -> Repaired:
    """One pass over everything that is stored. Raises RedisError."""
    done = Repaired()
    for index in list(redis.scan_iter(f"{keys.INDEXES}*", count=BATCH)):
        done.entries_without_record += _drop_entries(redis, index)
    done.entries_without_record += _drop_entries(redis, keys.EXPIRIES)
    for raw_keys in _batches(redis.scan_iter(keys.record_key("*"), count=BATCH)):
        done.records_without_entry += _index(redis, raw_keys)
    for raw_keys in _batches(redis.scan_iter(Job.key_for("*"), count=BATCH)):
        done.jobs_without_record += _drop_jobs(redis, queue, raw_keys)
    return done


def _drop_entries(redis: Redis, index: bytes | str) -> int:
    """Entries of ids that have no record: they would hold places in the queue for ever."""
    dropped = 0
    for batch in _batches(entry for entry, _ in redis.zscan_iter(index, count=BATCH)):
        with redis.pipeline(transaction=False) as pipe:
            for raw in batch:
                pipe.exists(keys.record_key(raw.decode()))
            gone = [raw for raw, exists in zip(batch, pipe.execute(), strict=True) if not exists]
        dropped += redis.zrem(index, *gone) if gone else 0
    return dropped


def _index(redis: Redis, raw_keys: list[bytes]) -> int:
    """Records that a listing, a count or an expiry would not find."""
    missing = 0
    for raw in redis.mget(raw_keys):
        try:
            record = None if raw is None else decode(raw)
        except RecordError:
            continue  # whoever asks for it next puts it on its way to its end
        if record is not None and not _is_indexed(redis, record):
            missing += _write_indexes(redis, record)
    return missing


def _is_indexed(redis: Redis, record: SummaryRecord) -> bool:
    with redis.pipeline(transaction=False) as pipe:
        for index in _places(record):
            pipe.zscore(index, record.id)
        return None not in pipe.execute()


def _write_indexes(redis: Redis, record: SummaryRecord) -> bool:
    """Unless it changes meanwhile: whoever changes it writes the indexes too."""
    with redis.pipeline() as pipe:
        try:
            pipe.watch(keys.record_key(record.id))
            raw = pipe.get(keys.record_key(record.id))
            if raw != encode(record):
                return False
            pipe.multi()
            for index, score in _places(record).items():
                pipe.zadd(index, {record.id: score})
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
