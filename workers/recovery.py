"""What becomes of the jobs of a worker that died.

A job that a worker runs is an entry of RQ's started registry whose score is the end of its lease; a live
worker moves that end forward. A job that was taken but not yet started stands in RQ's intermediate list.
Every worker looks at both now and then:

    lease over                    the record goes back to queued, the job to the front of the queue; the next
                                  start counts the attempt, and ends a job that had too many with job.lost
    stranded in the intermediate  back to the front of the queue

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
from contract.queue import enqueue
from contract.records import Status
from contract.store import SummaryStore

log = logging.getLogger("visum.recovery")

_END_LEASE = """
local ends = redis.call('ZSCORE', KEYS[1], ARGV[1])
if not ends or tonumber(ends) > tonumber(ARGV[2]) then return 0 end
redis.call('ZREM', KEYS[1], ARGV[1])
redis.call('ZREM', KEYS[5], ARGV[5])
redis.call('DEL', KEYS[6])
redis.call('LREM', KEYS[3], 0, ARGV[3])
if ARGV[4] == '1' and redis.call('EXISTS', KEYS[4]) == 1 and not redis.call('LPOS', KEYS[2], ARGV[3]) then
  redis.call('HSET', KEYS[4], 'status', 'queued')
  redis.call('LPUSH', KEYS[2], ARGV[3])
end
return 1
"""
"""KEYS: started registry, queue, intermediate list, job, the job's executions, the execution.
ARGV: entry, now, job id, '1' to put the job back, execution id.

The dead worker's execution goes with its lease: RQ looks all of a job's executions up when the job ends, and does
not end one that has an execution whose note has expired.
"""

_UNSTRAND = """
redis.call('DEL', KEYS[4])
if redis.call('LREM', KEYS[2], 0, ARGV[1]) == 0 then return 0 end
if redis.call('EXISTS', KEYS[3]) == 1 and not redis.call('LPOS', KEYS[1], ARGV[1]) then
  redis.call('LPUSH', KEYS[1], ARGV[1])
end
return 1
"""
"""KEYS: queue, intermediate list, job, mark of first sight. ARGV: job id."""


@dataclass(frozen=True)
class Lease:
    """One entry of the started registry."""

    entry: str
    job_id: str
    execution_id: str
    ends_at: float


class Recovery:
    """Puts the jobs of dead workers back. Any number of workers may run it at the same time."""

    def __init__(self, queue: Queue, store: SummaryStore, *, stranded_s: float) -> None:
        self._queue = queue
        self._store = store
        self._stranded_s = stranded_s
        self._redis: Redis = queue.connection
        self._end_lease = self._redis.register_script(_END_LEASE)
        self._unstrand = self._redis.register_script(_UNSTRAND)

    def run(self) -> None:
        """One look at every lease and every stranded job."""
        now = time.time()
        leases = self._leases()
        alive = {lease.job_id for lease in leases if lease.ends_at > now}
        for lease in leases:
            if lease.ends_at <= now:
                self._take_over(lease, now, running_elsewhere=lease.job_id in alive)
        self._free_stranded({lease.job_id for lease in leases})

    def _leases(self) -> list[Lease]:
        entries = self._redis.zrange(self._queue.started_job_registry.key, 0, -1, withscores=True)
        leases = []
        for raw, ends_at in entries:
            job_id, _, execution_id = raw.decode().partition(":")
            leases.append(Lease(raw.decode(), job_id, execution_id, ends_at))
        return leases

    def _take_over(self, lease: Lease, now: float, *, running_elsewhere: bool) -> None:
        """Settle the record first, then the queue: dying in between repeats this, it never loses the job."""
        put_back = not running_elsewhere and self._waits_again(lease.job_id)
        if self._release(lease, now, put_back=put_back) and put_back:
            log.warning("job %s was left by a worker that stopped answering: back in the queue", lease.job_id)
            if not Job.exists(lease.job_id, connection=self._redis):
                enqueue(self._queue, lease.job_id)  # RQ's own note of it is gone; ours is not

    def _waits_again(self, job_id: str) -> bool:
        """Whether the record is unfinished; a running one is queued again."""
        try:
            record = self._store.get(job_id)
            if record.status is Status.RUNNING:
                return self._store.requeue(job_id, record.generation)
            return record.status is Status.QUEUED
        except (SummaryNotFound, SummaryGone):
            return False
        except RecordError as damage:
            log.error("job %s is dropped, its record is kept as it is: %s", job_id, damage)
            return False

    def _release(self, lease: Lease, now: float, *, put_back: bool) -> bool:
        keys = [
            self._queue.started_job_registry.key,
            self._queue.key,
            self._queue.intermediate_queue_key,
            Job.key_for(lease.job_id),
            ExecutionRegistry(lease.job_id, self._redis).key,
            Execution(lease.execution_id, lease.job_id, self._redis).key,
        ]
        arguments = [lease.entry, now, lease.job_id, "1" if put_back else "0", lease.execution_id]
        return bool(self._end_lease(keys=keys, args=arguments))

    def _free_stranded(self, leased: set[str]) -> None:
        """A job is taken and leased within milliseconds; one that is seen between the two for long was dropped."""
        between = self._queue.intermediate_queue
        for job_id in between.get_job_ids():
            if job_id in leased or between.set_first_seen(job_id):
                continue
            seen = between.get_first_seen(job_id)
            if seen is not None and time.time() - seen.timestamp() > self._stranded_s:
                keys = [self._queue.key, between.key, Job.key_for(job_id), between.get_first_seen_key(job_id)]
                if self._unstrand(keys=keys, args=[job_id]):
                    log.warning("job %s was taken but never started: back to the front of the queue", job_id)
