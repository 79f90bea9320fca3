"""What an operator asks first: how much there is of everything, and whether anything is left over."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, Field

from contract import keys
from contract.ids import is_id
from contract.queue import live_slots
from contract.records import Status
from contract.waiting import seconds_until_served

if TYPE_CHECKING:
    from redis import Redis
    from rq import Queue

    from contract.blobs import BlobStore
    from contract.store import SummaryStore


class Stats(BaseModel):
    """The service at one moment."""

    model_config = ConfigDict(frozen=True)

    summaries: dict[Status, int] = Field(description="By status")
    queue_depth: int
    oldest_queued_s: float | None = Field(description="Age of the summary that waits longest")
    seconds_until_served: int = Field(
        description="When all that wait will be done, from what the last ones took"
    )
    videos: int
    video_bytes: int
    orphaned_videos: int = Field(
        description="Videos without a summary; the sweep removes them when they are old"
    )
    expiries_due: int = Field(description="Summaries past their time; the next sweep removes them")
    retries_due: int = Field(description="Jobs that wait for their next try")
    workers: int
    slots: int = Field(description="Summaries that the workers can work on at once")


def collect(redis: Redis, store: SummaryStore, queue: Queue, blobs: BlobStore) -> Stats:
    """Ask Redis and the blob store. Raises RedisError, OSError."""
    counts, oldest, slots = store.counts(), store.oldest_queued(), live_slots(queue)
    names = list(blobs.keys())
    sizes = {name: blobs.size(name) for name in names if blobs.exists(name)}
    depth = counts[Status.QUEUED]
    seconds, _ = redis.time()
    return Stats(
        summaries=counts,
        queue_depth=depth,
        oldest_queued_s=None if oldest is None else max(0.0, time.time() - oldest.timestamp()),
        seconds_until_served=seconds_until_served(redis, queue, depth) if depth else 0,
        videos=len(sizes),
        video_bytes=sum(sizes.values()),
        orphaned_videos=sum(1 for _ in store.without_record(filter(is_id, sizes))),
        expiries_due=redis.zcount(keys.EXPIRIES, "-inf", seconds),
        retries_due=redis.zcard(queue.scheduled_job_registry.key),
        workers=len(slots),
        slots=sum(slots),
    )
