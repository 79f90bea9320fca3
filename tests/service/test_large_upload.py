"""A 2 GiB upload, against a gateway process of its own whose memory is watched."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from contract.blobs import LocalBlobStore
from tests.service.wire import (
    FORM_ENDS,
    MP4,
    MP4_HEAD,
    connection,
    eventually,
    file_begins,
    post_head,
    status_of,
)

SIZE = 2 * 2**30
BLOCK = os.urandom(2**20)
GROWTH = 64 * 2**20


def resident(pid: int) -> int:
    """Bytes of physical memory that a process holds."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("the process has no memory")


@pytest.fixture
def gateway(redis_url: str, tmp_path: Path) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    log = tmp_path / "gateway.log"
    environment = {
        **os.environ,
        "VISUM_DATA_DIR": str(tmp_path),
        "VISUM_REDIS_URL": redis_url,
        "VISUM_MAX_UPLOAD_BYTES": str(3 * 2**30),
        "VISUM_MIN_FREE_BYTES": "0",
    }
    with log.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "uvicorn", "service.app:create_app", "--factory", "--port", "0"],
            env=environment,
            stdout=file,
            stderr=subprocess.STDOUT,
        )
    try:
        eventually(lambda: "Uvicorn running on" in log.read_text(), seconds=60)
        yield process, log.read_text().split("Uvicorn running on ")[1].split()[0]
    finally:
        process.terminate()
        process.wait(timeout=30)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
def test_two_gibibytes_pass_through_in_little_memory(
    gateway: tuple[subprocess.Popen[bytes], str], tmp_path: Path
) -> None:
    process, url = gateway
    warm = httpx.post(f"{url}/summaries", files={"file": ("a.mp4", MP4 + bytes(3 * 2**20))}, trust_env=False)
    assert warm.status_code == 202
    blobs, blocks = LocalBlobStore(tmp_path / "blobs"), SIZE // len(BLOCK)
    before = peak = resident(process.pid)
    digest = hashlib.sha256(MP4_HEAD)
    length = len(file_begins()) + len(MP4_HEAD) + SIZE + len(FORM_ENDS)
    with connection(url) as wire:
        wire.settimeout(120)
        wire.sendall(post_head(length) + file_begins() + MP4_HEAD)
        for number in range(blocks):
            wire.sendall(BLOCK)
            digest.update(BLOCK)
            if number % 8 == 0:
                peak = max(peak, resident(process.pid))
        wire.sendall(FORM_ENDS)
        assert status_of(wire) == 202
    peak = max(peak, resident(process.pid))
    newest = httpx.get(f"{url}/summaries", params={"limit": 1}, trust_env=False).json()["summaries"][0]["id"]
    stored = httpx.get(f"{url}/summaries/{newest}", trust_env=False).json()["request"]
    try:
        assert peak - before < GROWTH
        assert stored["size_bytes"] == blobs.size(newest) == len(MP4_HEAD) + SIZE
        assert stored["sha256"] == digest.hexdigest()
    finally:
        blobs.delete(newest)
