"""The whole service as processes that can be killed, paused and started again: two gateways, three workers, one Valkey.

Everything that is started here is the shipped command; only the pauses between its regular duties are shorter,
so that more faults fit into the time.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from redis import Redis
from redis.exceptions import RedisError

from benchmarks.processes import PartFailed, answers, end, environment, free_port
from contract.folders import blob_folder
from visum.valkey import EmbeddedValkey

PROC = Path("/proc")
GATEWAYS, WORKERS = 2, 3
PATIENCE_S = 180.0
LEASE_S = 10.0
PACE = {
    "VISUM_LEASE_SECONDS": str(LEASE_S),
    "VISUM_HEARTBEAT_SECONDS": "2",
    "VISUM_RECOVERY_SECONDS": "2",
    "VISUM_STRANDED_SECONDS": "5",
    "VISUM_DRAIN_SECONDS": "10",
    "VISUM_SWEEP_S": "2",
    "VISUM_ORPHAN_S": "30",
}


@dataclass
class Part:
    """One process, and how another is started in its place."""

    name: str
    kind: str  # gateway, worker or Redis
    start: Callable[[], subprocess.Popen[bytes]]
    url: str = ""
    process: subprocess.Popen[bytes] | None = None
    sessions: list[int] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def launch(self) -> None:
        """Start it; what it starts in turn belongs to its session."""
        self.process = self.start()
        self.sessions.append(self.process.pid)

    def signal(self, number: signal.Signals) -> None:
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(number)

    def decoders(self) -> dict[int, int]:
        """Of a worker: its decoding processes, each with the program that started it."""
        assert self.process is not None
        parents = {pid: parent for pid, parent, _ in _processes()}
        return {pid: server for pid, server in parents.items() if parents.get(server) == self.process.pid}

    def replace(self, number: signal.Signals) -> None:
        """End the process with this signal, and start another."""
        assert self.process is not None
        self.signal(number)
        try:
            self.process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired as stuck:
            raise PartFailed(f"{self.name} did not end within {PATIENCE_S:g} s of {number.name}") from stuck
        self.launch()


class System:
    """The parts of one service over one folder."""

    def __init__(self, folder: Path, settings: dict[str, str]) -> None:
        self.folder, self.data = folder, folder / "data"
        self.valkey = EmbeddedValkey(folder / "valkey")
        self.redis = Redis.from_url(self.valkey.url, socket_timeout=2.0, socket_connect_timeout=2.0)
        self._environment = environment(
            VISUM_REDIS_URL=self.valkey.url,
            VISUM_DATA_DIR=str(self.data),
            VISUM_DEVICE="cpu",
            VISUM_TORCH_THREADS="1",
            VISUM_WORKER_METRICS_PORT="0",
            **PACE,
            **settings,
        )
        self.parts = [Part("Redis", "Redis", self.valkey.start)]
        for number in range(1, GATEWAYS + 1):
            port = free_port()
            start = self._starts(f"gateway-{number}", "gateway", VISUM_PORT=str(port))
            self.parts.append(Part(f"gateway {number}", "gateway", start, f"http://127.0.0.1:{port}"))
        for number in range(1, WORKERS + 1):
            self.parts.append(Part(f"worker {number}", "worker", self._starts(f"worker-{number}", "worker")))

    def of(self, kind: str) -> list[Part]:
        return [part for part in self.parts if part.kind == kind]

    @property
    def urls(self) -> list[str]:
        return [gateway.url for gateway in self.of("gateway")]

    def blobs(self) -> list[str]:
        """Every file in the folder of videos but whose they are, half-written ones included."""
        folder = blob_folder(self.data)
        names = (path.name for path in folder.iterdir()) if folder.is_dir() else ()
        return sorted(name for name in names if not name.startswith("."))

    def logs(self, kind: str) -> str:
        """What all processes of a kind wrote."""
        paths = sorted(self.folder.glob(f"{kind}-*.log"))
        return "\n".join(path.read_text(errors="replace") for path in paths)

    def wait_until_ready(self) -> None:
        """Every gateway is ready, and every worker is there."""
        wait_until(lambda: all(answers(f"{url}/readyz") for url in self.urls), "the gateways are ready")
        wait_until(lambda: self._workers() >= WORKERS, "all workers are there")

    def survivors(self) -> list[int]:
        """Processes that belong to a part that was ended."""
        sessions = {session for part in self.parts for session in part.sessions}
        return [pid for pid, _, session in _processes() if session in sessions]

    def _workers(self) -> int:
        try:
            return self.redis.scard("rq:workers:visum-summaries")
        except RedisError:
            return 0

    def _starts(self, log: str, command: str, **settings: str) -> Callable[[], subprocess.Popen[bytes]]:
        def start() -> subprocess.Popen[bytes]:
            with (self.folder / f"{log}.log").open("ab") as file:
                return subprocess.Popen(
                    [sys.executable, "-m", "visum", command],
                    env={**self._environment, **settings},
                    stdin=subprocess.DEVNULL,
                    stdout=file,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )

        return start


@contextmanager
def running(folder: Path, settings: dict[str, str]) -> Iterator[System]:
    """The service, ready; every process of it is ended with the block."""
    system = System(folder, settings)
    try:
        for part in system.parts:
            part.launch()
        system.wait_until_ready()
        yield system
    finally:
        for part in reversed(system.parts):
            if part.process is not None:
                part.signal(signal.SIGCONT)
                end(part.process)
        system.redis.close()


def wait_until(true: Callable[[], object], what: str, timeout_s: float = PATIENCE_S) -> None:
    """
    Raises:
        PartFailed: it did not come about in time.
    """
    deadline = time.monotonic() + timeout_s
    while not true():
        if time.monotonic() > deadline:
            raise PartFailed(f"gave up after {timeout_s:g} s waiting until {what}")
        time.sleep(0.1)


def _processes() -> Iterator[tuple[int, int, int]]:
    """Every process that is no zombie, with its parent and its session."""
    for entry in PROC.iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                # The name in brackets may hold anything; state, parent, group and session follow it.
                state, parent, _, session = (entry / "stat").read_text().rpartition(")")[2].split()[:4]
            except (FileNotFoundError, ProcessLookupError):
                continue
            if state != "Z":
                yield int(entry.name), int(parent), int(session)
