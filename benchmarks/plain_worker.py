"""A plain RQ worker in a process of its own; `benchmarks.queued` runs it.

python -m benchmarks.plain_worker staying|forking|forking-preloaded REDIS_URL
"""

from __future__ import annotations

import sys

from redis import Redis
from rq import Queue, SimpleWorker, Worker
from rq.serializers import JSONSerializer

QUEUE = "plain-summaries"
STAYING, FORKING, PRELOADED = "staying", "forking", "forking-preloaded"


def open_queue(redis: Redis) -> Queue:
    """The queue of the plain workers."""
    return Queue(QUEUE, connection=redis, serializer=JSONSerializer)


def main(kind: str, redis_url: str) -> None:
    """Work until told to stop. A staying worker has the model before it takes its first job."""
    redis = Redis.from_url(redis_url)
    if kind == STAYING:
        from benchmarks.plain_job import loaded

        loaded()
    elif kind == PRELOADED:
        import peft  # noqa: F401
        from torchvision.transforms.v2 import functional  # noqa: F401
        from transformers import VideoLlama3ForConditionalGeneration, VideoLlama3Processor  # noqa: F401
        from transformers.video_utils import load_video  # noqa: F401
    worker = SimpleWorker if kind == STAYING else Worker
    worker([open_queue(redis)], connection=redis, serializer=JSONSerializer).work(logging_level="WARNING")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
