"""Debian's redis-server in place of the embedded Valkey, by its address alone."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis import Redis
from redis.exceptions import RedisError

from contract.result import SummaryResult
from tests.service.conftest import RunningGateway
from tests.service.wire import MP4, eventually


@pytest.fixture
def redis_url(short_path: Path) -> Iterator[str]:
    """Takes the place of the embedded server for the gateway of these tests."""
    server = shutil.which("redis-server")
    if server is None:
        pytest.skip("redis-server (Debian package redis-server) is not installed")
    socket = short_path / "redis.sock"
    options = ["--port", "0", "--unixsocket", str(socket), "--dir", str(short_path), "--appendonly", "yes"]
    process = subprocess.Popen([server, *options], stdout=subprocess.DEVNULL)
    url = f"unix://{socket}"

    def answers() -> bool:
        with Redis.from_url(url) as redis:
            try:
                return bool(redis.ping())
            except RedisError:
                return False

    try:
        eventually(answers, seconds=20)
        yield url
    finally:
        process.terminate()
        process.wait(timeout=20)


def test_a_summary_lives_its_whole_life_there(gateway: RunningGateway, result: SummaryResult) -> None:
    path = gateway.post(MP4, key="k").headers["Location"]
    assert gateway.post(MP4, key="k").headers["Location"] == path
    summary_id = path.rpartition("/")[2]
    assert gateway.http.get(path).json()["position"] == 1
    assert gateway.store.start(summary_id, "w") is not None
    assert gateway.store.succeed(summary_id, 1, result)
    assert gateway.http.get(path).json()["result"]["summary"] == result.summary
    assert [line["id"] for line in gateway.http.get("/summaries").json()["summaries"]] == [summary_id]
    assert gateway.http.delete(path).status_code == 204
    assert gateway.http.get(path).status_code == 410
