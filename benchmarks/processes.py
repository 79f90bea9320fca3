"""The parts of the service as processes of their own, on a private Valkey and a free port."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from benchmarks.subject import Subject
from visum.valkey import EmbeddedValkey

PATIENCE_S = 180.0
STOP_S = 60.0


class PartFailed(Exception):
    """A process ended, or did not get ready; the message holds the end of its log."""


@contextmanager
def part(name: str, folder: Path, *arguments: str, **settings: str) -> Iterator[subprocess.Popen[bytes]]:
    """`visum NAME ARGUMENTS` with these settings and no other; ended with the block. Its log is `folder`/name.log."""
    with (folder / f"{name}.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "visum", name, *arguments],
            env=environment(**settings),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        end(process)


@contextmanager
def valkey() -> Iterator[str]:
    """A Valkey of our own; yields its address. Its folder has a short name, as a unix socket wants."""
    folder = Path(tempfile.mkdtemp(prefix="visum-bench-", dir="/tmp"))
    server = EmbeddedValkey(folder / "valkey")
    process = server.start()
    try:
        yield server.url
    finally:
        end(process)
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def serving(subject: Subject, folder: Path) -> Iterator[tuple[str, int]]:
    """`visum serve` on its defaults, ready to summarize; yields its address and its process id."""
    folder.mkdir(parents=True)
    port = free_port()
    arguments = ("--port", str(port), "--data-dir", str(folder / "data"))
    with part("serve", folder, *arguments, **model_settings(subject)) as process:
        url = f"http://127.0.0.1:{port}"
        wait_until(lambda: answers(f"{url}/readyz"), process, folder / "serve.log")
        yield url, process.pid


def model_settings(subject: Subject) -> dict[str, str]:
    """What a part is told about backbone and adapters."""
    store = {} if subject.store is None else {"VISUM_MODEL_STORE": str(subject.store)}
    return {"VISUM_BACKBONE": str(subject.backbone), "VISUM_DEVICE": "cpu", **store}


def environment(**settings: str) -> dict[str, str]:
    """This process's environment with these settings of the product and none of the developer's own."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("VISUM_")}
    return {**kept, **settings}


def answers(url: str) -> bool:
    """Whether a GET there says 200."""
    try:
        return httpx.get(url, timeout=5.0, trust_env=False).status_code == httpx.codes.OK
    except httpx.HTTPError:
        return False


def wait_until(
    condition: Callable[[], bool], process: subprocess.Popen[bytes], log: Path, poll_s: float = 0.05
) -> None:
    """
    Raises:
        PartFailed: the process ended first, or it took too long.
    """
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        if process.poll() is not None or time.monotonic() > deadline:
            what = "did not get ready" if process.poll() is None else f"ended with {process.returncode}"
            raise PartFailed(f"{log.stem} {what}\n{_tail(log)}")
        time.sleep(poll_s)


def end(process: subprocess.Popen[bytes]) -> None:
    """SIGTERM, and SIGKILL if that does not do."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def free_port() -> int:
    """A port that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _tail(log: Path, lines: int = 20) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:]) if log.exists() else ""
