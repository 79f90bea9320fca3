"""Real gateways on real ports, workers without a model, and a Valkey of each test's own, all as processes."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from redis import Redis

from benchmarks.processes import answers, end, environment, free_port
from contract.blobs import LocalBlobStore
from contract.queue import open_queue
from contract.records import SummaryRecord
from contract.store import SummaryStore
from tests.service.wire import MP4

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_S = 60.0
QUICK = {
    "LEASE_SECONDS": 2,
    "HEARTBEAT_SECONDS": 0.3,
    "RECOVERY_SECONDS": 0.3,
    "STRANDED_SECONDS": 1,
    "WATCH_SECONDS": 0.05,
    "DRAIN_SECONDS": 5,
    "DRAIN_NOTICE_SECONDS": 1,
    "SWEEP_S": 0.2,
    "ORPHAN_S": 1,
    "MIN_FREE_BYTES": 0,
}


def wait_until(true: Callable[[], Any], what: str, timeout_s: float = PATIENCE_S) -> Any:
    """Poll until `true()` is; returns what it gave."""
    deadline = time.monotonic() + timeout_s
    while not (value := true()):
        assert time.monotonic() < deadline, f"gave up after {timeout_s:g} s waiting until {what}"
        time.sleep(0.02)
    return value


class Parts:
    """The service's parts over one folder and one Valkey, started by the test."""

    def __init__(self, redis_url: str, folder: Path) -> None:
        self.redis_url, self.data = redis_url, folder / "data"
        self.redis = Redis.from_url(redis_url)
        self.store = SummaryStore(self.redis)
        self.queue = open_queue(self.redis)
        self.blobs = LocalBlobStore(self.data / "blobs")
        self.log = folder / "parts.log"
        self._processes: list[subprocess.Popen[bytes]] = []

    def start(self, module: str, *arguments: str, **settings: object) -> subprocess.Popen[bytes]:
        """`python -m MODULE ARGUMENTS`; `settings` are VISUM_ variables."""
        told = {
            **QUICK,
            "REDIS_URL": self.redis_url,
            "DATA_DIR": self.data,
            **{name.upper(): value for name, value in settings.items()},
        }
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", module, *arguments],
                env=environment(
                    PYTHONPATH=str(ROOT), **{f"VISUM_{name}": str(value) for name, value in told.items()}
                ),
                cwd=ROOT,
                stdout=log,
                stderr=log,
            )
        self._processes.append(process)
        return process

    def gateway(
        self, *arguments: str, module: str = "visum", port: int | None = None, **settings: object
    ) -> tuple[subprocess.Popen[bytes], str]:
        """A gateway that answers, and its address."""
        port = port or free_port()
        process = self.start(module, *(arguments or ("gateway",)), port=port, **settings)
        url = f"http://127.0.0.1:{port}"
        wait_until(lambda: answers(f"{url}/healthz") or process.poll() is not None, "the gateway answers")
        assert process.poll() is None, self.log.read_text()
        return process, url

    def worker(self, *arguments: str, **settings: object) -> subprocess.Popen[bytes]:
        """A light worker that is registered."""
        process = self.start("tests.resilience.light_worker", *arguments, **settings)
        wait_until(lambda: self.is_listed(process) or process.poll() is not None, "the worker is listed")
        return process

    def is_listed(self, worker: subprocess.Popen[bytes]) -> bool:
        names = self.redis.smembers("rq:workers:visum-summaries")
        return any(f"-{worker.pid}-".encode() in name for name in names)

    def ended(self, summary_id: str) -> SummaryRecord:
        """The record, once it is finished."""
        wait_until(lambda: self.store.get(summary_id).status.finished, f"{summary_id} is finished")
        return self.store.get(summary_id)

    def books(self) -> dict[str, list[bytes]]:
        """What the queue's lists and RQ's notes hold."""
        queue = self.queue
        return {
            "queue": self.redis.lrange(queue.key, 0, -1),
            "taken": self.redis.lrange(queue.intermediate_queue_key, 0, -1),
            "running": self.redis.zrange(queue.started_job_registry.key, 0, -1),
            "later": self.redis.zrange(queue.scheduled_job_registry.key, 0, -1),
        }

    def files(self) -> list[str]:
        """Everything in the folder of videos but whose they are."""
        names = (path.name for path in (self.data / "blobs").iterdir())
        return sorted(name for name in names if not name.startswith("."))

    def close(self) -> None:
        for process in self._processes:
            end(process)
        self.redis.close()


def post(url: str, key: str = "k", name: str = "a.mp4", content: bytes = MP4) -> httpx.Response:
    """One upload with an idempotency key."""
    return httpx.post(
        f"{url}/summaries",
        files={"file": (name, content)},
        headers={"Idempotency-Key": key},
        timeout=30.0,
        trust_env=False,
    )


@pytest.fixture
def parts(redis_url: str, tmp_path: Path) -> Iterator[Parts]:
    found = Parts(redis_url, tmp_path)
    yield found
    found.close()
