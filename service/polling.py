"""The one read that clients repeat all day: a record and its place in the queue, in one round trip to Redis.

It waits on the event loop: a thread's turn would cost more than the read does.
"""

from __future__ import annotations

from redis.asyncio import Redis
from starlette.concurrency import run_in_threadpool

from contract import keys
from contract.errors import RecordError
from contract.records import Status, SummaryRecord, decode
from contract.store import SummaryStore


class Poller:
    """Reads one record at a time. What is unusual (absent, expired, unreadable, another's) is the store's to tell."""

    def __init__(self, redis: Redis, store: SummaryStore) -> None:
        self._redis, self._store = redis, store

    async def look(self, summary_id: str, *, tenant: str) -> tuple[SummaryRecord, int | None]:
        """The record, and while it waits its position (1: taken next).

        Raises:
            SummaryNotFound, SummaryGone, RecordError, RedisError: as SummaryStore.get does.
        """
        async with self._redis.pipeline(transaction=False) as pipe:
            pipe.get(keys.record_key(summary_id))
            pipe.zrank(keys.index_key(Status.QUEUED, None), summary_id)
            pipe.time()  # the clock by which summaries expire
            raw, rank, (seconds, _) = await pipe.execute()
        record = None if raw is None else _usual(raw, tenant, seconds)
        if record is None:
            record = await run_in_threadpool(self._store.get, summary_id, tenant=tenant)
        return record, None if rank is None else rank + 1

    async def close(self) -> None:
        await self._redis.aclose()


def _usual(raw: bytes, tenant: str, now_s: int) -> SummaryRecord | None:
    try:
        record = decode(raw)
    except RecordError:
        return None
    expired = record.expires_at is not None and record.expires_at.timestamp() <= now_s
    return None if expired or record.tenant != tenant else record
