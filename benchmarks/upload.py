"""Upload throughput of the gateway, beside the work that every upload needs at the least."""

from __future__ import annotations

import hashlib
import os
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import httpx

from benchmarks.plan import MIB, Plan
from benchmarks.processes import answers, free_port, part, valkey, wait_until
from benchmarks.report import Comparison
from benchmarks.side_by_side import Figures, Metric, take_turns
from benchmarks.subject import Subject

RATE = Metric("uploads", "MiB/s")
CHUNK = 2**20
BOUNDARY = "visum-benchmark"
MP4_HEAD = bytes.fromhex("0000001866747970") + b"isom" + bytes(4) + b"isommp42"
"""What the gateway looks at before it takes the rest."""


def upload(subject: Subject, plan: Plan) -> Comparison:
    """One upload and several at once against hashing and storing the same bytes without HTTP."""
    folder = subject.scratch / "upload"
    folder.mkdir()
    video = write_video(folder / "large.mp4", plan.upload_bytes)
    size, streams = plan.upload_bytes // MIB, plan.upload_streams
    floor, one, several = "hash, write and fsync alone", "one upload", f"{streams} uploads at once"
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    with valkey() as redis_url:
        settings = {"VISUM_REDIS_URL": redis_url, "VISUM_DATA_DIR": str(folder / "data")}
        settings |= {"VISUM_HOST": "127.0.0.1", "VISUM_PORT": str(port)}
        with part("gateway", folder, **settings) as process:
            wait_until(lambda: answers(f"{url}/healthz"), process, folder / "gateway.log")
            arms = {
                floor: lambda _: _rate(plan.upload_bytes, hash_and_store(video, folder / "copy.mp4")),
                one: lambda _: _uploads(url, video, 1),
                several: lambda _: _uploads(url, video, streams),
            }
            samples = take_turns(arms, rounds=plan.upload_rounds)
    return Comparison(
        key="upload",
        title="Uploads",
        how=f"Files of {size} MiB over the loopback to a gateway without a worker: from the connection to the "
        "`202`, which the gateway sends when the file is hashed and synced and its job is queued. The client "
        "costs next to nothing: the kernel sends the file.",
        rows=(
            samples.row(one, floor, RATE),
            samples.row(several, floor, RATE),
            samples.row(several, one, RATE),
        ),
    )


def write_video(path: Path, size: int) -> Path:
    """`size` random bytes that begin as an mp4 does."""
    with path.open("wb") as file:
        file.write(MP4_HEAD)
        for _ in range(size // CHUNK):
            file.write(os.urandom(CHUNK))
        file.truncate(size)
        os.fsync(file.fileno())
    return path


def hash_and_store(video: Path, copy: Path) -> float:
    """Seconds to do what an upload needs once its bytes are there."""
    began = time.perf_counter()
    digest = hashlib.sha256()
    with video.open("rb", buffering=0) as source, copy.open("wb", buffering=0) as target:
        while chunk := source.read(CHUNK):
            digest.update(chunk)
            target.write(chunk)
        os.fsync(target.fileno())
    seconds = time.perf_counter() - began
    copy.unlink()
    return seconds


def _uploads(url: str, video: Path, streams: int) -> Figures:
    began = time.perf_counter()
    with ThreadPoolExecutor(streams) as pool:
        places = list(pool.map(lambda _: post(url, video), range(streams)))
    seconds = time.perf_counter() - began
    for place in places:  # so that neither the queue nor the disk fills up
        httpx.delete(f"{url}{place}", timeout=60.0, trust_env=False).raise_for_status()
    return _rate(streams * video.stat().st_size, seconds)


def post(url: str, video: Path) -> str:
    """Upload a file as a form's part, sent by the kernel; the path of the new summary.

    Raises:
        RuntimeError: the answer is not 202.
    """
    address = urlsplit(url)
    head = (
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="{video.name}"\r\n'
        "Content-Type: video/mp4\r\n\r\n"
    ).encode()
    tail = f"\r\n--{BOUNDARY}--\r\n".encode()
    length = len(head) + video.stat().st_size + len(tail)
    request = (
        f"POST /summaries HTTP/1.1\r\nHost: {address.netloc}\r\nConnection: close\r\n"
        f"Content-Type: multipart/form-data; boundary={BOUNDARY}\r\nContent-Length: {length}\r\n\r\n"
    ).encode()
    with (
        socket.create_connection((address.hostname or "", address.port or 80)) as link,
        video.open("rb") as file,
    ):
        link.sendall(request + head)
        link.sendfile(file)
        link.sendall(tail)
        answer = link.makefile("rb").read().decode(errors="replace")
    status, *lines = answer.split("\r\n\r\n", 1)[0].split("\r\n")
    if status.split(" ")[1:2] != ["202"]:
        raise RuntimeError(f"the gateway said {status}: {answer[-300:]}")
    return next(line.partition(":")[2].strip() for line in lines if line.lower().startswith("location:"))


def _rate(size: int, seconds: float) -> Figures:
    return {RATE: size / MIB / seconds}
