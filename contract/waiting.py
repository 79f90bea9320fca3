"""How long a full queue takes, reckoned from what the last summaries took."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from contract import keys
from contract.queue import live_slots

if TYPE_CHECKING:
    from redis import Redis
    from redis.client import Pipeline
    from rq import Queue

    from contract.records import SummaryRecord

SAMPLES = 64
LEAST_S, MOST_S = 1, 300
UNKNOWN_S = 5  # before anything was measured


def note_service(pipe: Pipeline, record: SummaryRecord) -> None:
    """Remember how long a summary was worked on; it joins the transaction that ends it."""
    if record.started_at is None or record.finished_at is None:
        return
    seconds = max(0.0, (record.finished_at - record.started_at).total_seconds())
    pipe.lpush(keys.SERVICE_SECONDS, f"{seconds:.3f}")
    pipe.ltrim(keys.SERVICE_SECONDS, 0, SAMPLES - 1)


def seconds_until_served(redis: Redis, queue: Queue, depth: int) -> int:
    """When `depth` waiting summaries will be done: depth × mean seconds of the last ones / slots of live workers."""
    seconds = [float(raw) for raw in redis.lrange(keys.SERVICE_SECONDS, 0, SAMPLES - 1)]
    slots = sum(live_slots(queue))
    if not slots:
        return MOST_S
    if not seconds:
        return UNKNOWN_S
    wait = depth * (sum(seconds) / len(seconds)) / slots
    return min(max(math.ceil(wait), LEAST_S), MOST_S)
