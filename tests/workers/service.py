"""What a test of whole workers needs: the gateway's half of the work, and worker processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

from redis import Redis
from redis.client import Pipeline
from rq.worker_registration import get_keys

from contract.blobs import LocalBlobStore
from contract.containers import Container
from contract.ids import new_id
from contract.keys import record_key
from contract.queue import enqueue, open_queue
from contract.records import SummaryRecord, SummaryRequest
from contract.store import SummaryStore

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_S = 300.0


def wait_until(true: Callable[[], object], what: str, timeout_s: float = PATIENCE_S) -> Any:
    """Poll until `true()` is; returns what it gave."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if value := true():
            return value
        time.sleep(0.02)
    raise AssertionError(f"gave up after {timeout_s:g} s waiting until {what}")


@dataclass
class Service:
    """Queue, records and blobs as a gateway leaves them, and any number of workers on them."""

    redis_url: str
    data_dir: Path
    backbone: Path
    workers: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.redis = Redis.from_url(self.redis_url)
        self.store = SummaryStore(self.redis)
        self.queue = open_queue(self.redis)
        self.blobs = LocalBlobStore(self.data_dir / "blobs")
        self.models = self.data_dir / "models"

    def submit(
        self, video: Path, *, timeout_s: int | str | None = None, damage: bytes | None = None, **request: Any
    ) -> str:
        """Store a video and queue its summary, as the gateway does. `damage` takes the record's place."""
        now = datetime.now(UTC)
        summary_id, raw = new_id(now), video.read_bytes()
        with self.blobs.create(summary_id) as writer:
            writer.write(raw)
            writer.commit()
        record = SummaryRecord(
            id=summary_id,
            created_at=now,
            request=SummaryRequest(
                filename=video.name,
                sha256=sha256(raw).hexdigest(),
                size_bytes=len(raw),
                container=Container.MP4,
                blob_key=summary_id,
                **{"domain": "general", **request},
            ),
        )

        def queue_it(pipe: Pipeline, key: str) -> None:
            enqueue(self.queue, key, pipeline=pipe)
            if timeout_s is not None:
                pipe.hset(f"rq:job:{key}", "timeout", timeout_s)
            if damage is not None:
                pipe.set(record_key(key), damage)

        self.store.create(record, enqueue=queue_it, max_queued=100)
        return summary_id

    def start_worker(self, *, step_s: float = 0.0, **settings: Any) -> subprocess.Popen[bytes]:
        """A worker process; `settings` are WorkerSettings' fields. Returns when it is registered."""
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("VISUM_")},
            "PYTHONPATH": str(ROOT),
            "VISUM_REDIS_URL": self.redis_url,
            "VISUM_DATA_DIR": str(self.data_dir),
            "VISUM_BACKBONE": str(self.backbone),
            "VISUM_DEVICE": "cpu",
            "VISUM_TORCH_THREADS": "1",
            "VISUM_TEST_STEP_S": str(step_s),
            **{f"VISUM_{name.upper()}": str(value) for name, value in settings.items()},
        }
        log = (self.data_dir / f"worker-{len(self.workers)}.log").open("wb")
        worker = subprocess.Popen(
            [sys.executable, "-m", "tests.workers.slow_worker"],
            env=environment,
            cwd=ROOT,
            stdout=log,
            stderr=log,
        )
        log.close()
        self.workers.append(worker)
        wait_until(lambda: self.is_up(worker) or worker.poll() is not None, "the worker is up")
        assert worker.poll() is None, self.logs()
        return worker

    def is_up(self, worker: subprocess.Popen[bytes]) -> bool:
        """Whether the worker has registered: its name holds its process id."""
        return any(f"-{worker.pid}-" in name for name in get_keys(self.queue))

    def ended(self, summary_id: str, timeout_s: float = PATIENCE_S) -> SummaryRecord:
        """The record, once it is finished."""
        wait_until(lambda: self.store.get(summary_id).status.finished, "the summary is finished", timeout_s)
        return self.store.get(summary_id)

    def generating(self, summary_id: str) -> bool:
        """Whether the first tokens of the answer are there."""
        progress = self.store.get(summary_id).progress
        return progress.stage == "generate" and progress.done > 0

    def logs(self) -> str:
        """What all workers wrote."""
        return "\n".join(path.read_text() for path in sorted(self.data_dir.glob("worker-*.log")))

    def close(self) -> None:
        """End every worker that still runs."""
        for worker in self.workers:
            if worker.poll() is None:
                worker.send_signal(signal.SIGKILL)
            worker.wait(timeout=20)
        self.redis.close()
