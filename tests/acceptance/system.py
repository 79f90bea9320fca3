"""A running `visum serve` as its users see it, over HTTP, and as its operator does: its Redis and its processes."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from prometheus_client.parser import text_string_to_metric_families
from redis import Redis

from contract.folders import blob_folder, store_folder
from contract.records import Stage, Status
from contract.store import SummaryStore
from tests.visum.running import Service
from visum.valkey import EmbeddedValkey

PATIENCE_S = 240.0
FINISHED = {"succeeded", "failed", "canceled"}
TRIES = 20


@dataclass(frozen=True)
class Frozen:
    """A summary that was begun, and the process that stopped half way through its answer.

    `quicker` are the summaries tried before it, which were answered before they could be stopped.
    """

    summary_id: str
    pid: int
    quicker: tuple[str, ...]


class System:
    """One `visum serve` with its gateway, its workers and its Valkey."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.http = httpx.Client(base_url=service.url, timeout=60, trust_env=False)
        self.redis = Redis.from_url(EmbeddedValkey(service.data_dir / "valkey").url)
        self.store = SummaryStore(self.redis)

    def close(self) -> None:
        self.http.close()
        self.redis.close()

    # -- over HTTP ------------------------------------------------------------------------------

    def post(self, video: Path, **fields: object) -> httpx.Response:
        """Upload a file with these form fields."""
        data = {name: str(value) for name, value in fields.items()}
        with video.open("rb") as file:
            return self.http.post("/summaries", files={"file": (video.name, file)}, data=data)

    def submit(self, video: Path, **fields: object) -> str:
        """The id of a summary that was taken."""
        answer = self.post(video, **fields)
        assert answer.status_code == 202, answer.text
        return answer.json()["id"]

    def record(self, summary_id: str) -> dict[str, Any]:
        """The summary as it is now."""
        answer = self.http.get(f"/summaries/{summary_id}")
        assert answer.status_code == 200, answer.text
        return answer.json()

    def ended(self, summary_id: str, timeout_s: float = PATIENCE_S) -> dict[str, Any]:
        """The summary, once it is finished."""
        wait_until(
            lambda: self.record(summary_id)["status"] in FINISHED, "the summary is finished", timeout_s
        )
        return self.record(summary_id)

    def result(self, summary_id: str) -> dict[str, Any]:
        """What came out of a summary that must succeed."""
        record = self.ended(summary_id)
        assert record["status"] == "succeeded", record["error"]
        return record["result"]

    def summarize(self, video: Path, **fields: object) -> dict[str, Any]:
        """From file to result."""
        return self.result(self.submit(video, **fields))

    def known_ids(self) -> set[str]:
        """Every summary that is listed."""
        listed = self.http.get("/summaries", params={"limit": 200}).json()["summaries"]
        return {line["id"] for line in listed}

    def metric(self, name: str, **labels: str) -> float:
        """One number of /metrics, 0 while nothing was counted."""
        text = self.http.get("/metrics").text
        samples = (sample for family in text_string_to_metric_families(text) for sample in family.samples)
        return sum(s.value for s in samples if s.name == name and labels.items() <= s.labels.items())

    # -- from below -----------------------------------------------------------------------------

    @property
    def model_store(self) -> Path:
        """The folder of what is published on this machine."""
        return store_folder(self.service.data_dir)

    def stored_videos(self) -> set[str]:
        """Every file in the folder of uploads but whose they are, half-written ones included."""
        files = (path for path in blob_folder(self.service.data_dir).rglob("*") if path.is_file())
        return {path.name for path in files if not path.name.startswith(".")}

    def workers(self) -> set[int]:
        """The pids of the worker processes."""
        return {pid for pid, args in self.service.children().items() if args.endswith("visum worker")}

    def valkey(self) -> int:
        """The pid of the embedded Valkey."""
        return next(pid for pid, args in self.service.children().items() if "valkey" in args.split()[0])

    def worker_of(self, summary_id: str) -> int:
        """The pid of the worker that began a summary last."""
        name = self.store.get(summary_id).worker
        assert name is not None
        return int(name.split("-")[-2])

    @contextmanager
    def frozen_mid_answer(self, video: Path, **fields: object) -> Iterator[Frozen]:
        """A summary whose worker is stopped (SIGSTOP) between two tokens of the answer, for the block.

        The demo answers within a second or two: a request that was quicker than the signal is let go and
        another one tried.
        """
        quicker: list[str] = []
        while len(quicker) < TRIES:
            summary_id = self.submit(video, **fields)
            wait_until(lambda found=summary_id: self._generating_or_over(found), "the answer begins")
            pid = self.worker_of(summary_id)
            with stopped(pid):
                if self.store.get(summary_id).status is Status.RUNNING:
                    yield Frozen(summary_id, pid, tuple(quicker))
                    return
            quicker.append(summary_id)
        raise AssertionError(f"{TRIES} answers were all quicker than a signal")

    def _generating_or_over(self, summary_id: str) -> bool:
        record = self.store.get(summary_id)
        begun = record.progress.stage is Stage.GENERATE and record.progress.done > 0
        return begun or record.status.finished


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    """Hold a process still. One that is killed meanwhile is no error."""
    os.kill(pid, signal.SIGSTOP)
    wait_until(lambda: _state(pid) == "T", f"process {pid} stands still")
    try:
        yield
    finally:
        if _state(pid) == "T":
            os.kill(pid, signal.SIGCONT)


def wait_until(true: Callable[[], object], what: str, timeout_s: float = PATIENCE_S) -> None:
    """Poll until `true()` is."""
    deadline = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < deadline, f"gave up after {timeout_s:g} s waiting until {what}"
        time.sleep(0.005)


def _state(pid: int) -> str:
    """The process's state letter; empty when it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return ""
