"""Looking at many summaries at once: pages, positions, counts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from redis.exceptions import ReadOnlyError

from contract import keys
from contract.clock import ServerClock
from contract.errors import RecordError
from contract.ids import created_at
from contract.records import Status, SummaryRecord, decode
from contract.tenants import DEFAULT_TENANT

if TYPE_CHECKING:
    from redis import Redis


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a listing, newest first. `cursor` continues it; None at the end.

    `unreadable` names stored records that could not be decoded.
    """

    records: tuple[SummaryRecord, ...]
    cursor: str | None
    unreadable: tuple[str, ...] = ()


class SummaryListing:
    """The indexes of the store, read. `redis` must hand out bytes (no decode_responses).

    `clock` is the time of Redis unless another is given.
    """

    def __init__(self, redis: Redis, clock: Callable[[], datetime] | None = None) -> None:
        self._redis = redis
        self._now = ServerClock(redis) if clock is None else clock

    def now(self) -> datetime:
        """The time that all processes share. Raises RedisError."""
        return self._now()

    def page(
        self,
        *,
        tenant: str = DEFAULT_TENANT,
        status: Status | None = None,
        domain: str | None = None,
        limit: int = 50,
        cursor: str | None = None,
    ) -> Page:
        """A tenant's, newest first. `cursor` is the last id of the page before."""
        index = keys.index_key(status, domain, tenant)
        top = "+" if cursor is None else f"({cursor}"
        ids = [raw.decode() for raw in self._redis.zrevrangebylex(index, top, "-", 0, limit + 1)]
        page, more = ids[:limit], len(ids) > limit
        records, unreadable = self._read_many(page, index)
        return Page(tuple(records), page[-1] if more else None, tuple(unreadable))

    def position(self, summary_id: str) -> int | None:
        """1 for the summary that is taken next, and so on; None when it does not wait."""
        rank = self._redis.zrank(keys.index_key(Status.QUEUED, None), summary_id)
        return None if rank is None else rank + 1

    def counts(self) -> dict[Status, int]:
        """How many summaries are in each status."""
        with self._redis.pipeline(transaction=False) as pipe:
            for status in Status:
                pipe.zcard(keys.index_key(status, None))
            return dict(zip(Status, pipe.execute(), strict=True))

    def queued(self) -> int:
        """How many summaries wait."""
        return self._redis.zcard(keys.index_key(Status.QUEUED, None))

    def oldest_queued(self) -> datetime | None:
        """When the summary that waits longest was created."""
        first = self._redis.zrangebylex(keys.index_key(Status.QUEUED, None), "-", "+", 0, 1)
        return created_at(first[0].decode()) if first else None

    def _read_many(self, ids: Sequence[str], index: str) -> tuple[list[SummaryRecord], list[str]]:
        records, unreadable = [], []
        raws = self._redis.mget([keys.record_key(summary_id) for summary_id in ids]) if ids else []
        for summary_id, raw in zip(ids, raws, strict=True):
            if raw is None:  # buried while unreadable: the index was the last to know
                with suppress(ReadOnlyError):  # the daily sweep does it, too
                    self._redis.zrem(index, summary_id)
                continue
            try:
                record = decode(raw)
            except RecordError:
                unreadable.append(summary_id)
                continue
            if not self._expired(record):
                records.append(record)
        return records, unreadable

    def _expired(self, record: SummaryRecord) -> bool:
        return record.expires_at is not None and record.expires_at <= self._now()
