"""The summaries in Redis.

A new one is a script's (`creation`). Every change is one MULTI/EXEC under WATCH of the record: read, decide in
Python (`transitions`), write record and indexes together. If anyone else wrote in between, or the connection broke,
it is read and decided again: a change that was made, and whose answer got lost, is recognized by what it wrote.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import islice
from typing import TYPE_CHECKING, TypeAlias

from redis.exceptions import ConnectionError as RedisAway
from redis.exceptions import TimeoutError as RedisSilent
from redis.exceptions import WatchError

from contract import keys, stored_videos, transitions
from contract.creation import CreateScript, Idempotency
from contract.errors import (
    OutcomeUnknown,
    RecordError,
    SummaryGone,
    SummaryNotFound,
    SummaryUnfinished,
)
from contract.listing import SummaryListing
from contract.queue import MAX_ATTEMPTS
from contract.quotas import NO_QUOTA, Quota, Usage
from contract.records import JobError, Progress, Status, SummaryRecord, decode, encode
from contract.result import SummaryResult
from contract.tenants import DEFAULT_TENANT
from contract.waiting import note_service

if TYPE_CHECKING:
    from redis import Redis
    from redis.client import Pipeline

_TRIES = 100  # a change that loses this many races in a row is reported, not retried

_AT_ONCE = 500  # records that one command asks for

FORGOTTEN_KEPT_S = 3600  # how long workers are told of a video that was deleted

Enqueue: TypeAlias = "Callable[[Pipeline, str], object]"


@dataclass(frozen=True, slots=True)
class Retention:
    """How long things are kept, counted from the end of a summary (idempotency: from its creation)."""

    finished: timedelta = timedelta(days=1)
    tombstones: timedelta = timedelta(days=30)
    idempotency: timedelta = timedelta(days=1)


class SummaryStore(SummaryListing):
    """Records, their indexes and their ends. `redis` must hand out bytes (no decode_responses)."""

    def __init__(
        self,
        redis: Redis,
        retention: Retention | None = None,
        *,
        max_attempts: int = MAX_ATTEMPTS,
        clock: Callable[[], datetime] | None = None,
    ) -> None:
        super().__init__(redis, clock)
        self._retention = Retention() if retention is None else retention
        self._max_attempts = max_attempts
        self._create = CreateScript(redis)

    # -- the gateway's side ---------------------------------------------------------------------

    def create(
        self,
        record: SummaryRecord,
        *,
        enqueue: Enqueue,
        max_queued: int,
        idempotency: Idempotency | None = None,
        quota: Quota = NO_QUOTA,
    ) -> str:
        """Write a new record and queue its job, both or neither; the id that answers the request.

        That is the record's own, or an earlier one's if the same request was made with the same key and its summary
        is still there.
        `enqueue(pipeline, id)` puts the job's writes on the pipeline.

        Raises:
            IdempotencyConflict: the key belongs to another request.
            QueueFull: `max_queued` summaries wait already.
            QuotaExceeded: the tenant has as many unfinished summaries, or stored bytes, as it may have.
            OutcomeUnknown: Redis broke off during the write. With a plain RedisError nothing was written.
        """
        with self._redis.pipeline() as writes:
            writes.multi()  # RQ would begin a transaction of its own
            self._write(writes, None, record)
            stored_videos.note(writes, record)
            self._remember(writes, idempotency, record.id)
            enqueue(writes, record.id)
            try:
                return self._create(
                    writes, record, max_queued=max_queued, idempotency=idempotency, quota=quota
                )
            except (RedisAway, RedisSilent) as error:
                raise OutcomeUnknown(record.id) from error

    def usage(self, tenant: str) -> Usage:
        """What the tenant has."""
        with self._redis.pipeline() as pipe:
            for status in (Status.QUEUED, Status.RUNNING):
                pipe.zcard(keys.index_key(status, None, tenant))
            pipe.hget(keys.STORED_BYTES, tenant)
            *unfinished, stored_bytes = pipe.execute()
        return Usage(unfinished=sum(unfinished), stored_bytes=int(stored_bytes or 0))

    def known_key(self, key: str, tenant: str = DEFAULT_TENANT) -> bool:
        """Whether a tenant used an idempotency key before, for a summary that is still there."""
        raw = self._redis.get(keys.idempotency_key(key, tenant))
        return raw is not None and self.exists(raw.decode().rpartition(" ")[2])

    def get(self, summary_id: str, *, tenant: str | None = None) -> SummaryRecord:
        """The record. To a tenant that is named, another's is not there.

        Raises:
            SummaryNotFound, SummaryGone: there is none, or none any more.
            RecordError: it can't be read.
        """
        raw = self._redis.get(keys.record_key(summary_id))
        if raw is None:
            raise self._absent(summary_id, tenant)
        try:
            record = self._decode(summary_id, raw)
        except RecordError:
            if tenant is not None and self._owner(summary_id) != tenant:
                raise SummaryNotFound(summary_id) from None
            raise
        if tenant is not None and record.tenant != tenant:
            raise SummaryNotFound(summary_id)
        if self._expired(record):
            raise SummaryGone(summary_id)
        return record

    def exists(self, summary_id: str) -> bool:
        """Whether a record is stored, readable or not."""
        return bool(self._redis.exists(keys.record_key(summary_id)))

    def without_record(self, summary_ids: Iterable[str]) -> Iterator[str]:
        """Those of the ids that have no record, readable or not."""
        left = iter(summary_ids)
        while some := list(islice(left, _AT_ONCE)):
            with self._redis.pipeline(transaction=False) as pipe:
                for summary_id in some:
                    pipe.exists(keys.record_key(summary_id))
                yield from (one for one, found in zip(some, pipe.execute(), strict=True) if not found)

    def request_cancel(self, summary_id: str) -> Status:
        """Cancel: a queued summary at once, a running one by a flag that its worker sees.

        Raises:
            SummaryNotFound, SummaryGone: there is none, or none any more.
        """
        record = self._change(
            summary_id,
            lambda old: transitions.request_cancel(old, now=self._now(), keep=self._retention.finished),
        )
        if record is None:
            raise self._absent(summary_id)
        return record.status

    def delete(self, summary_id: str) -> SummaryRecord:
        """Remove a finished summary; its id answers "gone" from here on. Returns what it was.

        Raises:
            SummaryNotFound, SummaryGone: there is none, or none any more.
            SummaryUnfinished: it must be canceled first.
        """
        record: SummaryRecord | None = None
        for _ in range(_TRIES):
            with self._redis.pipeline() as pipe:
                try:
                    pipe.watch(keys.record_key(summary_id))
                    raw = pipe.get(keys.record_key(summary_id))
                    if raw is None and record is not None:
                        return record  # removed by the try before, or by another at the same time
                    if raw is None:
                        raise self._absent(summary_id)
                    record = decode(raw)
                    if not record.status.finished:
                        raise SummaryUnfinished(summary_id)
                    now = self._now().timestamp()
                    pipe.multi()
                    self._bury(pipe, summary_id, keys.index_keys(record), record.tenant)
                    pipe.zadd(keys.FORGOTTEN, {record.request.sha256: now})
                    pipe.zremrangebyscore(keys.FORGOTTEN, "-inf", now - FORGOTTEN_KEPT_S)
                    pipe.execute()
                    return record
                except WatchError:
                    continue
        raise WatchError(f"summary {summary_id} could not be deleted: too many others at once")

    def expire_due(self, limit: int = 100) -> list[str]:
        """Remove what has outlived its retention; the keys of their videos, so that those can go too.

        An unreadable record's video is looked for under its id, which is where the gateway puts it.
        """
        due = self._redis.zrangebyscore(keys.EXPIRIES, "-inf", self._now().timestamp(), 0, limit)
        expired = []
        for summary_id in (raw.decode() for raw in due):
            try:
                expired.append(self.delete(summary_id).request.blob_key)
            except RecordError:
                self._bury_unreadable(summary_id)
                expired.append(summary_id)
            except (SummaryNotFound, SummaryGone, SummaryUnfinished):
                self._redis.zrem(keys.EXPIRIES, summary_id)
        return expired

    # -- the worker's side ----------------------------------------------------------------------

    def start(self, summary_id: str, worker: str) -> SummaryRecord | None:
        """Take the job: the record, with the generation that every later write must carry.

        None when there is nothing to do: finished, canceled, deleted, or begun too often (it is
        failed then, with what became of the last attempt).
        """
        record = self._change(
            summary_id,
            lambda old: transitions.start(
                old,
                worker=worker,
                now=self._now(),
                keep=self._retention.finished,
                max_attempts=self._max_attempts,
            ),
        )
        return record if record is not None and record.status is Status.RUNNING else None

    def progress(self, summary_id: str, generation: int, progress: Progress) -> bool:
        """Say how far the job is; False when another worker has it or it is over."""
        return self._held(
            summary_id, lambda old: transitions.advance(old, generation=generation, progress=progress)
        )

    def succeed(self, summary_id: str, generation: int, result: SummaryResult) -> bool:
        """Store the result and finish; False when another worker has the job, it is over or was canceled."""
        after = self._change(
            summary_id,
            lambda old: transitions.succeed(
                old, generation=generation, result=result, now=self._now(), keep=self._retention.finished
            ),
        )
        return after is not None and after.status is Status.SUCCEEDED

    def fail(self, summary_id: str, generation: int, error: JobError) -> bool:
        """Finish without a summary; False when another worker has the job or it is over."""
        return self._held(
            summary_id,
            lambda old: transitions.fail(
                old, generation=generation, error=error, now=self._now(), keep=self._retention.finished
            ),
        )

    def requeue(
        self,
        summary_id: str,
        generation: int,
        *,
        refund_attempt: bool = False,
        setback: JobError | None = None,
    ) -> bool:
        """Hand the job back; True when it waits again and its RQ job must go back to the queue.

        False when another worker has it, it is over, or it was canceled meanwhile (it is over then).
        `refund_attempt` does not count this attempt: the worker stopped of its own accord. `setback` says why
        there is another.
        """
        record = self._change(
            summary_id,
            lambda old: transitions.requeue(
                old,
                generation=generation,
                refund_attempt=refund_attempt,
                setback=setback,
                now=self._now(),
                keep=self._retention.finished,
            ),
        )
        return record is not None and record.status is Status.QUEUED

    def lose(self, summary_id: str, generation: int) -> bool:
        """The worker that held a running job in this generation is gone; True when the job waits, and has to be in the
        queue. False when it is over, or when another has begun it since."""
        record = self._change(
            summary_id,
            lambda old: transitions.lose(
                old, generation=generation, now=self._now(), keep=self._retention.finished
            ),
        )
        return record is not None and record.status is Status.QUEUED

    def forgotten(self) -> dict[str, float]:
        """sha256 → second, of every video that was deleted in the last hour: nothing made of one may be kept."""
        told = self._redis.zrange(keys.FORGOTTEN, 0, -1, withscores=True)
        return {raw.decode(): at for raw, at in told}

    def cancel_requested(self, summary_id: str) -> bool:
        """Whether the job should stop: canceled, or gone altogether."""
        raw = self._redis.get(keys.record_key(summary_id))
        return raw is None or self._decode(summary_id, raw).cancel_requested

    def finish_canceled(self, summary_id: str, generation: int) -> bool:
        """The job has stopped on request; False when another worker has it or it is over."""
        return self._held(
            summary_id,
            lambda old: transitions.finish_canceled(
                old, generation=generation, now=self._now(), keep=self._retention.finished
            ),
        )

    # -- inside ---------------------------------------------------------------------------------

    def _held(self, summary_id: str, transition: Callable[[SummaryRecord], SummaryRecord | None]) -> bool:
        return self._change(summary_id, transition) is not None

    def _change(
        self, summary_id: str, transition: Callable[[SummaryRecord], SummaryRecord | None]
    ) -> SummaryRecord | None:
        """Apply a transition; the record after it, or None if it was refused or there is no record."""
        written, after = b"", None
        for _ in range(_TRIES):
            with self._redis.pipeline() as pipe:
                try:
                    pipe.watch(keys.record_key(summary_id))
                    raw = pipe.get(keys.record_key(summary_id))
                    if raw is None:
                        return None
                    if raw == written:  # by the try before, whose answer got lost
                        return after
                    before = self._decode(summary_id, raw)
                    after = transition(before)
                    if after is None or after is before:
                        return after
                    pipe.multi()
                    written = self._write(pipe, before, after)
                    pipe.execute()
                    return after
                except WatchError:
                    continue
        raise WatchError(f"summary {summary_id} could not be changed: too many others at once")

    def _decode(self, summary_id: str, raw: bytes) -> SummaryRecord:
        """The record. Raises RecordError.

        What can't be read will never finish, so from the first try on it is kept as long as if it had.
        """
        try:
            return decode(raw)
        except RecordError:
            expires_at = self._now() + self._retention.finished
            self._redis.zadd(keys.EXPIRIES, {summary_id: expires_at.timestamp()}, nx=True)
            raise

    def _write(self, pipe: Pipeline, before: SummaryRecord | None, after: SummaryRecord) -> bytes:
        """Note the record and its indexes; the bytes that are stored."""
        left = frozenset() if before is None else keys.index_keys(before)
        joined = keys.index_keys(after)
        raw = encode(after)
        pipe.set(keys.record_key(after.id), raw)
        for index in left - joined:
            pipe.zrem(index, after.id)
        for index in joined - left:
            pipe.zadd(index, {after.id: 0})
        if after.expires_at is not None:
            pipe.zadd(keys.EXPIRIES, {after.id: after.expires_at.timestamp()})
        if after.status is Status.SUCCEEDED:
            note_service(pipe, after)
        return raw

    def _bury(self, pipe: Pipeline, summary_id: str, indexes: frozenset[str], tenant: str) -> None:
        pipe.delete(keys.record_key(summary_id))
        for index in indexes:
            pipe.zrem(index, summary_id)
        pipe.zrem(keys.EXPIRIES, summary_id)
        stored_videos.forget(pipe, summary_id)
        pipe.set(keys.tombstone_key(summary_id), tenant, ex=self._retention.tombstones)

    def _bury_unreadable(self, summary_id: str) -> None:
        """Its domain can't be told: the indexes by domain keep the id until a listing comes across it."""
        owner = self._owner(summary_id)
        indexes = frozenset(
            keys.index_key(status, None, tenant) for status in (None, *Status) for tenant in (None, owner)
        )
        with self._redis.pipeline() as pipe:
            self._bury(pipe, summary_id, indexes, owner)
            pipe.execute()

    def _remember(self, pipe: Pipeline, idempotency: Idempotency | None, summary_id: str) -> None:
        if idempotency is not None:
            value = f"{idempotency.fingerprint} {summary_id}"
            key = keys.idempotency_key(idempotency.key, idempotency.tenant)
            pipe.set(key, value, ex=self._retention.idempotency)

    def _owner(self, summary_id: str) -> str:
        """Whose an unreadable record is."""
        return stored_videos.tenant_of(self._redis, summary_id) or DEFAULT_TENANT

    def _absent(self, summary_id: str, tenant: str | None = None) -> SummaryNotFound | SummaryGone:
        owner = self._redis.get(keys.tombstone_key(summary_id))
        if owner is None or (tenant is not None and (owner.decode() or DEFAULT_TENANT) != tenant):
            return SummaryNotFound(summary_id)
        return SummaryGone(summary_id)
