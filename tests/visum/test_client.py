"""The client, against a real gateway that no worker serves: what is sent stays queued."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.visum.running import clean_environment, free_port, wait_for
from visum.client import Client, Options
from visum.errors import ServiceAway, ServiceError, UsageError


@pytest.fixture
def gateway(redis_url: str, tmp_path: Path) -> Iterator[str]:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    process = subprocess.Popen(
        [sys.executable, "-m", "visum", "gateway"],
        env=clean_environment(
            VISUM_PORT=str(port), VISUM_REDIS_URL=redis_url, VISUM_DATA_DIR=str(tmp_path), VISUM_MAX_QUEUE="2"
        ),
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_for(lambda: _answers(url), "the gateway")
        yield url
    finally:
        process.terminate()
        assert process.wait(timeout=30) == 0


def test_the_upload_reports_every_byte_of_the_file(gateway: str, clips: list[Path]) -> None:
    counts: list[int] = []
    with Client(gateway) as client:
        client.submit(clips[0], Options(), counts.append)
    assert sum(counts) == clips[0].stat().st_size


def test_options_reach_the_record(gateway: str, clips: list[Path]) -> None:
    with Client(gateway) as client:
        accepted = client.submit(clips[0], Options("general", "Who wins?", max_new_tokens=9, seed=3))
        record, pause = client.record(accepted["id"])
    request = record["request"]
    assert (request["domain"], request["instructions"]) == ("general", "Who wins?")
    assert (request["max_new_tokens"], request["seed"]) == (9, 3)
    assert record["status"] == "queued"
    assert 0 < pause <= 5


def test_a_full_queue_says_when_to_try_again(gateway: str, clips: list[Path]) -> None:
    with Client(gateway) as client:
        client.submit(clips[0], Options())
        client.submit(clips[0], Options())
        with pytest.raises(ServiceError, match=r"Try again in \d+ s") as refused:
            client.submit(clips[0], Options())
    assert refused.value.status == 503


def test_a_service_without_workers_is_not_ready(gateway: str) -> None:
    with Client(gateway) as client:
        assert not client.ready()


def test_a_record_that_is_not_there_is_an_error_with_its_code(gateway: str) -> None:
    with Client(gateway) as client, pytest.raises(ServiceError) as missing:
        client.record("01K00000000000000000000000")
    assert missing.value.status == 404
    assert missing.value.code


def test_a_file_that_cannot_be_read_is_a_wrong_argument(gateway: str, tmp_path: Path) -> None:
    with Client(gateway) as client, pytest.raises(UsageError, match="cannot be read"):
        client.submit(tmp_path / "none.mp4", Options())


def test_an_address_that_is_none_is_a_wrong_argument() -> None:
    with Client("localhost:8000") as client, pytest.raises(UsageError, match="is no http address"):
        client.record("x")


def test_nobody_at_the_address_is_said_as_such() -> None:
    with Client("http://127.0.0.1:9") as client, pytest.raises(ServiceAway, match="Nothing answers at"):
        client.record("x")


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Children that heed SIGINT, also where the tests run in the background of a shell, which ignores it for them."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_an_interrupt_cancels_what_is_unfinished(gateway: str, clips: list[Path]) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "visum", "summarize", str(clips[0]), "--url", gateway],
        env=clean_environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    wait_for(lambda: bool(_records(gateway)), "the clip to be queued")
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=30) == 130
    assert [record["status"] for record in _records(gateway)] == ["canceled"]


def _answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/healthz", timeout=5).is_success
    except httpx.TransportError:
        return False


def _records(url: str) -> list[dict[str, object]]:
    return httpx.get(f"{url}/summaries").json()["summaries"]
