"""What becomes of the jobs of a worker that died.

A job that a worker runs is an entry of RQ's started registry, and its lease is a key of Redis that expires
unless the worker renews it: only Redis' clock counts, so a machine whose clock jumps loses nothing and takes
nothing. A job that was taken but not yet started stands in RQ's intermediate list, one that waits for its next
try in RQ's scheduled registry. Every worker looks at all of them now and then:

    lease over                    the record goes back to queued, the job to the front of the queue; the next
                                  start counts the attempt, and ends a job that had too many with job.lost
    stranded in the intermediate  back to the front of the queue
    next try due                  back into the queue
    in none of them, unfinished   a record without a job: it gets a new one

RQ's own cleanup does the like, but waits for a lock of 15 minutes whose holder may be the one that died,
and a fixed minute for stranded jobs. Each move here is one Lua script, so that whoever dies half way
leaves the job where the next worker finds it, and two workers never both put it back.
"""

import logging
import time
from dataclasses import dataclass

from redis import Redis
from rq import Queue
from rq.executions import Execution, ExecutionRegistry
from rq.job import Job

from contract.errors import RecordError, SummaryGone, SummaryNotFound
from contract.keys import index_key, mended_key
from contract.queue import LEASE_SECONDS, enqueue
from contract.records import Status
from contract.store import SummaryStore
from workers.retries import LONGEST_PAUSE_S

log = logging.getLogger("visum.recovery")

_END_LEASE = """
if not redis.call('ZSCORE', KEYS[1], ARGV[1]) or redis.call('EXISTS', KEYS[6]) == 1 then return 0 end
redis.call('ZREM', KEYS[1], ARGV[1])
redis.call('ZREM', KEYS[5], ARGV[4])
redis.call('LREM', KEYS[3], 0, ARGV[2])
if ARGV[3] == '1' and redis.call('EXISTS', KEYS[4]) == 1 and not redis.call('LPOS', KEYS[2], ARGV[2]) then
  redis.call('HSET', KEYS[4], 'status', 'queued')
  redis.call('LPUSH', KEYS[2], ARGV[2])
end
return 1
"""
"""KEYS: started registry, queue, intermediate list, job, the job's executions, the execution.
ARGV: entry, job id, '1' to put the job back, execution id.

The dead worker's execution goes with its lease: RQ looks all of a job's executions up when the job ends, and does
not end one that has an execution whose note, which is the lease, has expired.
"""

_UNSTRAND = """
if redis.call('LREM', KEYS[2], 0, ARGV[1]) == 0 then return 0 end
if redis.call('EXISTS', KEYS[3]) == 1 and not redis.call('LPOS', KEYS[1], ARGV[1]) then
  redis.call('LPUSH', KEYS[1], ARGV[1])
end
return 1
"""
"""KEYS: queue, intermediate list, job. ARGV: job id."""

_AGAIN = """
local now = tonumber(redis.call('TIME')[1])
local due = 0
for index, job in ipairs(redis.call('ZRANGE', KEYS[1], 0, -1)) do
  local at = tonumber(redis.call('ZSCORE', KEYS[1], job))
  if at <= now or at > now + tonumber(ARGV[1]) then
    redis.call('ZREM', KEYS[1], job)
    if not redis.call('LPOS', KEYS[2], job) then redis.call('RPUSH', KEYS[2], job) end
    due = due + 1
  end
end
return due
"""
"""KEYS: scheduled registry, queue. ARGV: the longest pause there is: what is due later was noted by a wrong clock."""


@dataclass(frozen=True)
class Lease:
    """One entry of the started registry."""

    entry: str
    job_id: str
    execution_id: str
    alive: bool


class Recovery:
    """Puts the jobs of dead workers back. Any number of workers may run it at the same time."""

    def __init__(self, queue: Queue, store: SummaryStore, *, stranded_s: float) -> None:
        self._queue = queue
        self._store = store
        self._stranded_s = stranded_s
        self._redis: Redis = queue.connection
        self._end_lease = self._redis.register_script(_END_LEASE)
        self._unstrand = self._redis.register_script(_UNSTRAND)
        self._again = self._redis.register_script(_AGAIN)
        self._between_since: dict[str, float] = {}  # stranded job → when this worker first saw it there
        self._missing: set[str] = set()  # records that were found without a job at the last look
        self._damaged: set[str] = set()  # ... and can't be read: they are not looked at again

    def run(self) -> None:
        """One look at every job that is anywhere but in the queue."""
        leases = self._leases()
        alive = {lease.job_id for lease in leases if lease.alive}
        for lease in leases:
            if not lease.alive:
                self._take_over(lease, running_elsewhere=lease.job_id in alive)
        self._free_stranded({lease.job_id for lease in leases})
        self._again(
            keys=[self._queue.scheduled_job_registry.key, self._queue.key], args=[LONGEST_PAUSE_S + 1]
        )
        self._replace_missing()

    def _leases(self) -> list[Lease]:
        entries = [raw.decode() for raw in self._redis.zrange(self._queue.started_job_registry.key, 0, -1)]
        parted = [(entry, *entry.split(":", 1)) for entry in entries]
        with self._redis.pipeline(transaction=False) as pipe:
            for _, job_id, execution_id in parted:
                pipe.exists(Execution(execution_id, job_id, self._redis).key)
            alive = pipe.execute() if parted else []
        return [Lease(*parts, alive=bool(found)) for parts, found in zip(parted, alive, strict=True)]

    def _take_over(self, lease: Lease, *, running_elsewhere: bool) -> None:
        """Settle the record first, then the queue: dying in between repeats this, it never loses the job.

        Another worker may have taken the job over since the leases were read, and a third have begun it: so what is
        lost is the generation that ran while this lease was still there, and no later one.
        """
        generation = self._generation(lease.job_id)
        if not self._is_over(lease):
            return
        put_back = not running_elsewhere and self._waits_again(lease.job_id, generation)
        if self._release(lease, put_back=put_back) and put_back:
            log.warning("job %s was left by a worker that stopped answering: back in the queue", lease.job_id)
            if not Job.exists(lease.job_id, connection=self._redis):
                enqueue(self._queue, lease.job_id)  # RQ's own note of it is gone; ours is not

    def _is_over(self, lease: Lease) -> bool:
        """Whether the lease still stands where it stood, without anybody behind it."""
        with self._redis.pipeline(transaction=False) as pipe:
            pipe.zscore(self._queue.started_job_registry.key, lease.entry)
            pipe.exists(Execution(lease.execution_id, lease.job_id, self._redis).key)
            entered, alive = pipe.execute()
        return entered is not None and not alive

    def _generation(self, job_id: str) -> int | None:
        """Of the job's record; None where there is none that can be read."""
        try:
            return self._store.get(job_id).generation
        except (SummaryNotFound, SummaryGone):
            return None
        except RecordError as damage:
            log.error("job %s is dropped, its record is kept as it is: %s", job_id, damage)
            self._damaged.add(job_id)
            return None

    def _waits_again(self, job_id: str, generation: int | None) -> bool:
        """Whether the record is unfinished; one that runs in this generation is queued again."""
        return generation is not None and self._store.lose(job_id, generation)

    def _release(self, lease: Lease, *, put_back: bool) -> bool:
        keys = [
            self._queue.started_job_registry.key,
            self._queue.key,
            self._queue.intermediate_queue_key,
            Job.key_for(lease.job_id),
            ExecutionRegistry(lease.job_id, self._redis).key,
            Execution(lease.execution_id, lease.job_id, self._redis).key,
        ]
        arguments = [lease.entry, lease.job_id, "1" if put_back else "0", lease.execution_id]
        return bool(self._end_lease(keys=keys, args=arguments))

    def _free_stranded(self, leased: set[str]) -> None:
        """A job is taken and leased within milliseconds; one that is seen between the two for long was dropped."""
        between, now = self._queue.intermediate_queue, time.monotonic()
        since, self._between_since = self._between_since, {}
        for job_id in between.get_job_ids():
            if job_id in leased:
                continue
            self._between_since[job_id] = since.get(job_id, now)
            if now - self._between_since[job_id] > self._stranded_s:
                keys = [self._queue.key, between.key, Job.key_for(job_id)]
                if self._unstrand(keys=keys, args=[job_id]):
                    log.warning("job %s was taken but never started: back to the front of the queue", job_id)

    def _replace_missing(self) -> None:
        """A record that is unfinished and whose job is nowhere, at two looks in a row, gets another job."""
        missing = self._unfinished_without_job()
        for job_id in missing & self._missing:
            first = self._redis.set(mended_key(job_id), b"", nx=True, ex=LEASE_SECONDS)
            if first and self._waits_again(job_id, self._generation(job_id)):
                log.warning("summary %s had lost its job: queued again", job_id)
                enqueue(self._queue, job_id)
        self._missing = missing - self._damaged

    def _unfinished_without_job(self) -> set[str]:
        """All places in one transaction: a job on its way from one to the next is in one of them."""
        with self._redis.pipeline() as pipe:
            for status in (Status.QUEUED, Status.RUNNING):
                pipe.zrange(index_key(status, None), 0, -1)
            pipe.lrange(self._queue.key, 0, -1)
            pipe.lrange(self._queue.intermediate_queue_key, 0, -1)
            pipe.zrange(self._queue.scheduled_job_registry.key, 0, -1)
            pipe.zrange(self._queue.started_job_registry.key, 0, -1)
            queued, running, *places, started = pipe.execute()
        placed = {raw for place in places for raw in place} | {raw.partition(b":")[0] for raw in started}
        return {raw.decode() for raw in {*queued, *running} - placed}
