"""What is put under load: the gateway, and the bare endpoint beside it, each a process of its own on one Valkey."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from redis import Redis

from benchmarks.processes import answers, end, environment, free_port, part, valkey, wait_until
from benchmarks.upload import BOUNDARY, MP4_HEAD
from contract.folders import blob_folder
from resilience.load_bare import FOLDER, REDIS
from resilience.load_client import post

FORM_TYPE = f"multipart/form-data; boundary={BOUNDARY}"
NO_BOUND = "10000000"


@dataclass(frozen=True)
class Running:
    """A gateway without a worker, and the bare endpoint."""

    url: str
    bare_url: str
    redis_url: str
    blobs: Path
    bare_blobs: Path
    gateway_pid: int
    bare_pid: int

    def empty(self) -> None:
        """Forget all that was taken: neither side is to be slowed down by what it did before."""
        with Redis.from_url(self.redis_url) as redis:
            redis.flushall()
        for folder in (self.blobs, self.bare_blobs):
            for path in folder.iterdir():
                path.unlink(missing_ok=True)


@contextmanager
def running(scratch: Path) -> Iterator[Running]:
    """Both, ready to answer, for the block."""
    data, bare_blobs = scratch / "data", scratch / "bare"
    bare_blobs.mkdir(parents=True)
    port, bare_port = free_port(), free_port()
    url, bare_url = (f"http://127.0.0.1:{number}" for number in (port, bare_port))
    with ExitStack() as stack:
        redis_url = stack.enter_context(valkey())
        settings = {"VISUM_REDIS_URL": redis_url, "VISUM_DATA_DIR": str(data), "VISUM_PORT": str(port)}
        gateway = stack.enter_context(part("gateway", scratch, **settings, VISUM_MAX_QUEUE=NO_BOUND))
        bare = stack.enter_context(_bare(scratch, bare_port, bare_blobs, redis_url))
        wait_until(lambda: answers(f"{url}/healthz"), gateway, scratch / "gateway.log")
        wait_until(lambda: answers(f"{bare_url}/nothing"), bare, scratch / "bare.log")
        yield Running(url, bare_url, redis_url, blob_folder(data), bare_blobs, gateway.pid, bare.pid)


@contextmanager
def _bare(scratch: Path, port: int, folder: Path, redis_url: str) -> Iterator[subprocess.Popen[bytes]]:
    options = ("--no-access-log", "--no-server-header", "--log-level", "warning", "--port", str(port))
    with (scratch / "bare.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "uvicorn", "--factory", "resilience.load_bare:create_app", *options],
            env=environment(**{FOLDER: str(folder), REDIS: redis_url}),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        yield process
    finally:
        end(process)


def form(size: int) -> bytes:
    """A form with a video of `size` random bytes that begin as an mp4 does."""
    return form_of(MP4_HEAD + os.urandom(size - len(MP4_HEAD)))


def form_of(video: bytes) -> bytes:
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="a.mp4"\r\n\r\n'
    return head.encode() + video + f"\r\n--{BOUNDARY}--\r\n".encode()


def submit(body: bytes) -> bytes:
    """The request that submits a form."""
    return post("/summaries", body, FORM_TYPE)
