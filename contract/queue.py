"""The one queue between gateway and workers, and how a job gets into it.

RQ moves a job reliably only for a worker that listens on exactly one queue, so there is one.
Arguments and results are JSON on both sides: a pickle would run whatever it says.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rq import Queue
from rq.serializers import JSONSerializer
from rq.worker_registration import get_keys

if TYPE_CHECKING:
    from redis import Redis
    from redis.client import Pipeline

QUEUE_NAME = "visum-summaries"
JOB_FUNCTION = "workers.job.summarize"  # dotted: the gateway never imports the workers
LEASE_SECONDS = 60  # a worker that is silent for longer has lost its jobs
MAX_ATTEMPTS = 5  # how often a job is begun, by workers that die under it, before it is given up
MAX_FAILURES = 3  # how often it is begun when its attempts end in a failure that may pass
JOB_TIMEOUT_SECONDS = 1800  # one video, from start to end
SLOTS_FIELD = "slots"  # of a worker's note in Redis: how many summaries it can work on at once
FAILED_JOB_TTL_SECONDS = 86_400  # RQ's own note of a job that raised; our record is kept apart


def open_queue(connection: Redis) -> Queue:
    """The queue, for either side."""
    return Queue(
        QUEUE_NAME,
        connection=connection,
        serializer=JSONSerializer,
        default_timeout=JOB_TIMEOUT_SECONDS,
    )


def enqueue(queue: Queue, summary_id: str, *, pipeline: Pipeline | None = None) -> None:
    """Queue the job of a summary; its RQ id is the summary's.

    With a pipeline the writes join the caller's transaction. RQ keeps no result: the record does.
    """
    queue.enqueue_call(
        JOB_FUNCTION,
        args=(summary_id,),
        job_id=summary_id,
        timeout=JOB_TIMEOUT_SECONDS,
        result_ttl=0,
        failure_ttl=FAILED_JOB_TTL_SECONDS,
        pipeline=pipeline,
    )


def withdraw(queue: Queue, summary_id: str) -> None:
    """Take a canceled summary's job out of the queue, if it still waits there."""
    job = queue.fetch_job(summary_id)
    if job is not None and queue.connection.lrem(queue.key, 0, summary_id):
        job.delete(remove_from_queue=False)


def live_workers(queue: Queue) -> int:
    """How many workers listen and were heard of lately."""
    return len(live_slots(queue))


def workers_taking(queue: Queue) -> int:
    """How many workers take jobs: one that drains, or whose queue is suspended, is alive and takes none."""
    return sum(slots > 0 for slots in live_slots(queue))


def live_slots(queue: Queue) -> list[int]:
    """How many summaries each worker can work on at once, of the workers that were heard of lately.

    A worker's note in Redis expires when its heartbeats stop: no clock but Redis' own is asked.
    """
    names = sorted(get_keys(queue))
    with queue.connection.pipeline(transaction=False) as pipe:
        for name in names:
            pipe.exists(name)
            pipe.hget(name, SLOTS_FIELD)
        told = pipe.execute() if names else []
    return [int(slots or 1) for alive, slots in zip(told[::2], told[1::2], strict=True) if alive]
