"""A store over a real, empty Valkey, with a clock that tests turn by hand."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

import pytest
from redis import Redis
from rq import Queue

from contract.creation import Idempotency
from contract.ids import new_id
from contract.queue import enqueue, open_queue
from contract.records import SummaryRecord, SummaryRequest
from contract.result import SummaryResult
from contract.store import Retention, SummaryStore


class Clock:
    """Time that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = datetime.now(UTC)

    def __call__(self) -> datetime:
        return self.now

    def forward(self, **span: float) -> None:
        self.now += timedelta(**span)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def redis(redis_url: str) -> Iterator[Redis]:
    with Redis.from_url(redis_url) as client:
        yield client


@pytest.fixture
def queue(redis: Redis) -> Queue:
    return open_queue(redis)


@pytest.fixture
def store(redis: Redis, clock: Clock) -> SummaryStore:
    return SummaryStore(redis, Retention(finished=timedelta(hours=1)), clock=clock)


@pytest.fixture
def record(clock: Clock) -> Callable[..., SummaryRecord]:
    """Makes new records; each call moves the clock, so that ids come in order."""

    def make(**request: object) -> SummaryRecord:
        clock.forward(milliseconds=5)
        summary_id = new_id(clock.now)
        given = {"filename": "a.mp4", "sha256": "0" * 64, "size_bytes": 7, "container": "mp4", **request}
        return SummaryRecord(
            id=summary_id,
            created_at=clock.now,
            request=SummaryRequest.model_validate({**given, "blob_key": summary_id}),
        )

    return make


@pytest.fixture
def create(store: SummaryStore, queue: Queue, record: Callable[..., SummaryRecord]) -> Callable[..., str]:
    """Stores and queues a new record; its id."""

    def put(*, max_queued: int = 100, idempotency: Idempotency | None = None, **request: object) -> str:
        return store.create(
            record(**request),
            enqueue=lambda pipe, job_id: enqueue(queue, job_id, pipeline=pipe),
            max_queued=max_queued,
            idempotency=idempotency,
        )

    return put


@pytest.fixture
def result() -> SummaryResult:
    """What a worker stores, as JSON would bring it."""
    return SummaryResult.model_validate(
        {
            "id": "01K4Z7QHR8V2M6N3P5T9W1XBYC",
            "video": {
                "filename": "a.mp4",
                "sha256": "0" * 64,
                "duration_s": 2.0,
                "fps": 24.0,
                "width": 320,
                "height": 240,
                "frames": {"count": 4, "timestamps_s": [0.0, 0.5, 1.0, 1.5]},
            },
            "summary": "A red car drives.",
            "finish_reason": "stop",
            "domain": {"requested": "auto", "selected": "traffic", "scores": {"traffic": 0.9, "sports": 0.1}},
            "model": {
                "backbone": "b",
                "backbone_fingerprint": "f",
                "adapter": "traffic",
                "adapter_version": 1,
            },
            "gates": {
                "fusion_alpha": 0.5,
                "temporal": {"experts": [0.75, 0.25], "entropy": 0.56},
                "spatial": None,
                "layers": [{"name": "q_proj", "group": "temporal", "experts": [0.75, 0.25]}],
            },
            "usage": {"frames": 4, "video_tokens": 64, "prompt_tokens": 80, "completion_tokens": 5},
            "timings_ms": {"queued": 1, "decode": 2, "adapter": 0, "prefill": 3, "generate": 4, "total": 10},
            "receipt": {"seed": None, "preprocessor": "p", "software": "s"},
        }
    )
