"""`visum serve` as a process of its own, over a tiny random backbone of the real architecture."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

PATIENCE_S = 240.0


@dataclass
class Service:
    """One running `visum serve`."""

    process: subprocess.Popen[bytes]
    url: str
    port: int
    data_dir: Path
    log: Path

    def children(self) -> dict[int, str]:
        """pid → command line of the processes that it started and that are alive."""
        listed = subprocess.run(
            ["ps", "-o", "pid=,stat=,args=", "--ppid", str(self.process.pid)],
            capture_output=True,
            text=True,
            check=False,
        )
        rows = (line.split(maxsplit=2) for line in listed.stdout.splitlines())
        return {int(pid): args for pid, state, args in rows if not state.startswith("Z")}

    def pid_of(self, command: str) -> int:
        """The child whose command line ends with `command`."""
        return next(pid for pid, args in self.children().items() if args.endswith(command))

    def stop(self) -> int:
        """SIGTERM; the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=PATIENCE_S)


@contextmanager
def serving(folder: Path, backbone: Path, **environment: str) -> Iterator[Service]:
    """Start `visum serve`, wait until it can summarize, and stop it at the end if it still runs."""
    port = free_port()
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "serve.log"
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "visum", "serve", "--port", str(port), "--data-dir", str(folder / "data")],
            env=clean_environment(VISUM_BACKBONE=str(backbone), **environment),
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    service = Service(process, f"http://127.0.0.1:{port}", port, folder / "data", log)
    try:
        wait_for(lambda: answers_ready(service), f"{log} to say that it is ready", log)
        yield service
    finally:
        if process.poll() is None:
            service.stop()


def answers_ready(service: Service) -> bool:
    """Whether /readyz says yes. Raises AssertionError once the process has ended."""
    assert service.process.poll() is None, service.log.read_text()
    try:
        return httpx.get(f"{service.url}/readyz", timeout=5).status_code == 200
    except httpx.TransportError:
        return False


def wait_for(condition: Callable[[], bool], what: str, log: Path | None = None) -> None:
    """Poll until the condition holds. Raises AssertionError after four minutes."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"waited for {what}" + (f"\n{log.read_text()}" if log is not None else ""))
        time.sleep(0.05)


def free_port() -> int:
    """A port that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def clean_environment(**changes: str) -> Mapping[str, str]:
    """This process's environment without any setting of the product, and with the changes."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("VISUM_")}
    return {**kept, "OMP_NUM_THREADS": "1", **changes}


def run_visum(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """One command to its end."""
    return subprocess.run(
        [sys.executable, "-m", "visum", *map(str, arguments)],
        env=clean_environment(**environment),
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
