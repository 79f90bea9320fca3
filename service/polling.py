"""The one read that clients repeat all day: a record and its place in the queue, in one command to Redis.

It waits on the event loop: a thread's turn would cost more than the read does. A script, not a pipeline: three commands
and their answers take the client twice as long as one.
"""

from __future__ import annotations

from redis.asyncio import Redis
from starlette.concurrency import run_in_threadpool

from contract import keys
from contract.errors import RecordError
from contract.records import Status, SummaryRecord, decode
from contract.store import SummaryStore

# The record, its rank among those that wait, and the second on the clock by which summaries expire.
_LOOK = """
return {redis.call('GET', KEYS[1]), redis.call('ZRANK', KEYS[2], ARGV[1]), redis.call('TIME')[1]}
"""


class Poller:
    """Reads one record at a time. What is unusual (absent, expired, unreadable, another's) is the store's to tell."""

    def __init__(self, redis: Redis, store: SummaryStore) -> None:
        self._redis, self._store = redis, store
        self._script = redis.register_script(_LOOK)

    async def look(self, summary_id: str, *, tenant: str) -> tuple[SummaryRecord, int | None]:
        """The record, and while it waits its position (1: taken next).

        Raises:
            SummaryNotFound, SummaryGone, RecordError, RedisError: as SummaryStore.get does.
        """
        raw, rank, seconds = await self._script(
            [keys.record_key(summary_id), keys.index_key(Status.QUEUED, None)], [summary_id]
        )
        record = None if raw is None else _usual(raw, tenant, int(seconds))
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
