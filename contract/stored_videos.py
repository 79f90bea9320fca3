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

# In one step of Redis: what is written meanwhile would not be in the sum.
_RECOUNT = """
local sums = {}
local notes = redis.call('HVALS', KEYS[1])
for _, note in ipairs(notes) do
  local bytes, tenant = string.match(note, '^(%d+) (.+)$')
  sums[tenant] = (sums[tenant] or 0) + tonumber(bytes)
end
for _, tenant in ipairs(redis.call('HKEYS', KEYS[2])) do sums[tenant] = sums[tenant] or 0 end
local wrong = 0
for tenant, bytes in pairs(sums) do
  if tonumber(redis.call('HGET', KEYS[2], tenant) or 0) ~= bytes then
    redis.call('HSET', KEYS[2], tenant, string.format('%.0f', bytes))
    wrong = wrong + 1
  end
end
return wrong
"""


def note(pipe: Pipeline, record: SummaryRecord) -> None:
    """A new summary's video counts from now on."""
    size = record.request.size_bytes
    pipe.hset(keys.STORED_VIDEOS, record.id, f"{size} {record.tenant}")
    pipe.hincrby(keys.STORED_BYTES, record.tenant, size)


def forget(pipe: Pipeline, summary_id: str) -> None:
    """The summary is gone, and its video with it."""
    pipe.eval(_FORGET, 2, keys.STORED_VIDEOS, keys.STORED_BYTES, summary_id)


def recount(redis: Redis) -> int:
    """Put right what does not come to the bytes of its videos; how many tenants' it was."""
    return redis.eval(_RECOUNT, 2, keys.STORED_VIDEOS, keys.STORED_BYTES)


def tenant_of(redis: Redis, summary_id: str) -> str | None:
    """Whose the summary is, where its record does not say; None if that was never noted."""
    raw = redis.hget(keys.STORED_VIDEOS, summary_id)
    return None if raw is None else raw.decode().partition(" ")[2]
