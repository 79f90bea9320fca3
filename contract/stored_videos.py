"""Whose videos are stored, and how many bytes of them each tenant has: counted in the transactions of the records.

It is noted apart from the records, so that one that turns unreadable is still somebody's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from contract import keys

if TYPE_CHECKING:
    from redis import Redis
    from redis.client import Pipeline

    from contract.records import SummaryRecord

# Done once however often it is asked for: two gateways may sweep the same summary.
_FORGET = """
local note = redis.call('HGET', KEYS[1], ARGV[1])
if note then
  local bytes, tenant = string.match(note, '^(%d+) (.+)$')
  redis.call('HINCRBY', KEYS[2], tenant, '-' .. bytes)
  redis.call('HDEL', KEYS[1], ARGV[1])
end
"""


def note(pipe: Pipeline, record: SummaryRecord) -> None:
    """A new summary's video counts from now on."""
    size = record.request.size_bytes
    pipe.hset(keys.STORED_VIDEOS, record.id, f"{size} {record.tenant}")
    pipe.hincrby(keys.STORED_BYTES, record.tenant, size)


def forget(pipe: Pipeline, summary_id: str) -> None:
    """The summary is gone, and its video with it."""
    pipe.eval(_FORGET, 2, keys.STORED_VIDEOS, keys.STORED_BYTES, summary_id)


def tenant_of(redis: Redis, summary_id: str) -> str | None:
    """Whose the summary is, where its record does not say; None if that was never noted."""
    raw = redis.hget(keys.STORED_VIDEOS, summary_id)
    return None if raw is None else raw.decode().partition(" ")[2]
