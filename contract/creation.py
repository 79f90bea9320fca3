"""Whether a new summary is let in, decided and written in one step of Redis.

A script, not WATCH: all creations look at the length of one queue, so under WATCH they would undo each other.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from contract import keys
from contract.errors import IdempotencyConflict, QueueFull
from contract.quotas import Quota
from contract.records import Status, SummaryRecord
from contract.tenants import DEFAULT_TENANT

if TYPE_CHECKING:
    from redis import Redis
    from redis.client import Pipeline

# ARGV: bound of the queue, the tenant, its bounds of unfinished summaries and of stored bytes (0: none), the bytes to
# come, what the names of records begin with; then the writes, each after the number of its words. A repeated call finds
# the record and writes nothing.
_ADMIT = """
local record, queued, own_queued, own_running, stored, expiries, idempotency = unpack(KEYS)
local function is_there(id)
  local expires_at = redis.call('ZSCORE', expiries, id)
  local time = redis.call('TIME')
  local expired = expires_at and tonumber(expires_at) <= time[1] + time[2] / 1e6
  return not expired and redis.call('EXISTS', ARGV[6] .. id) == 1
end
if redis.call('EXISTS', record) == 1 then return {'created'} end
if idempotency then
  local earlier = redis.call('GET', idempotency)
  if earlier and is_there(string.match(earlier, '[^ ]+$')) then return {'earlier', earlier} end
end
local depth = redis.call('ZCARD', queued)
if depth >= tonumber(ARGV[1]) then return {'full', depth} end
local most_unfinished, most_bytes = tonumber(ARGV[3]), tonumber(ARGV[4])
if most_unfinished > 0 or most_bytes > 0 then
  local unfinished = redis.call('ZCARD', own_queued) + redis.call('ZCARD', own_running)
  local bytes = tonumber(redis.call('HGET', stored, ARGV[2]) or 0) + tonumber(ARGV[5])
  if (most_unfinished > 0 and unfinished >= most_unfinished) or (most_bytes > 0 and bytes > most_bytes) then
    return {'quota', unfinished, bytes}
  end
end
local at = 7
while at <= #ARGV do
  local last = at + tonumber(ARGV[at])
  redis.call(unpack(ARGV, at + 1, last))
  at = last + 1
end
return {'created'}
"""


@dataclass(frozen=True, slots=True)
class Idempotency:
    """A client's key, and a digest of all that makes its request what it is. Tenants' keys are apart.

    A key stands for the summary that it made, as long as there is one and the key is kept (`Retention.idempotency`):
    after that the request begins anew.
    """

    key: str
    fingerprint: str
    tenant: str = DEFAULT_TENANT


class CreateScript:
    """The script, on one Redis."""

    def __init__(self, redis: Redis) -> None:
        self._script = redis.register_script(_ADMIT)

    def __call__(
        self,
        writes: Pipeline,
        record: SummaryRecord,
        *,
        max_queued: int,
        idempotency: Idempotency | None,
        quota: Quota,
    ) -> str:
        """Do what is on the pipeline, all of it or nothing; the id that answers the request.

        Raises:
            IdempotencyConflict, QueueFull, QuotaExceeded: nothing was written. RedisError.
        """
        tenant = record.tenant
        touched = [
            keys.record_key(record.id),
            keys.index_key(Status.QUEUED, None),
            *(keys.index_key(status, None, tenant) for status in (Status.QUEUED, Status.RUNNING)),
            keys.STORED_BYTES,
            keys.EXPIRIES,
        ]
        if idempotency is not None:
            touched.append(keys.idempotency_key(idempotency.key, idempotency.tenant))
        words = [max_queued, tenant, quota.unfinished, quota.stored_bytes, record.request.size_bytes]
        words.append(keys.record_key(""))
        for command, _ in writes.command_stack:
            words += [len(command), *command]
        match self._script(touched, words):
            case [b"earlier", raw] if idempotency is not None:
                fingerprint, _, earlier = raw.decode().partition(" ")
                if fingerprint != idempotency.fingerprint:
                    raise IdempotencyConflict(idempotency.key)
                return earlier
            case [b"full", depth]:
                raise QueueFull(depth, max_queued)
            case [b"quota", unfinished, stored_bytes]:
                quota.check(unfinished, stored_bytes)
        return record.id
