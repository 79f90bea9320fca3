"""`visum admin stats` over a Valkey and a folder of videos."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from redis import Redis
from rq import SimpleWorker
from rq.serializers import JSONSerializer

from contract.ids import new_id
from contract.queue import QUEUE_NAME, enqueue, open_queue
from contract.records import SummaryRecord, SummaryRequest
from contract.store import SummaryStore
from visum.cli import main
from visum.valkey import EmbeddedValkey


@pytest.fixture
def submit(redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], str]:
    """Stores a video of 7 bytes and queues its summary; the command is told where both are."""
    monkeypatch.setenv("VISUM_REDIS_URL", redis_url)
    monkeypatch.setenv("VISUM_BLOB_DIR", str(tmp_path))

    def put() -> str:
        now = datetime.now(UTC)
        summary_id = new_id(now)
        (tmp_path / summary_id).write_bytes(b"1234567")
        request = SummaryRequest(
            filename="a.mp4", sha256="0" * 64, size_bytes=7, container="mp4", blob_key=summary_id
        )
        with Redis.from_url(redis_url) as redis:
            queue = open_queue(redis)
            SummaryStore(redis).create(
                SummaryRecord(id=summary_id, created_at=now, request=request),
                enqueue=lambda pipe, job_id: enqueue(queue, job_id, pipeline=pipe),
                max_queued=10,
            )
        return summary_id

    return put


def test_it_counts_what_there_is_and_what_is_left_over(
    submit: Callable[[], str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    submit()
    submit()
    (tmp_path / new_id(datetime.now(UTC))).write_bytes(b"123")
    assert main(["admin", "stats", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["summaries"]["queued"] == told["queue_depth"] == 2
    assert (told["videos"], told["video_bytes"], told["orphaned_videos"]) == (3, 17, 1)
    assert (told["workers"], told["slots"], told["expiries_due"], told["retries_due"]) == (0, 0, 0, 0)
    assert 0 <= told["oldest_queued_s"] < 60


def test_a_person_gets_a_table(submit: Callable[[], str], capsys: pytest.CaptureFixture[str]) -> None:
    submit()
    assert main(["admin", "stats"]) == 0
    assert "queue depth" in capsys.readouterr().out


def test_it_finds_the_service_that_runs_on_this_machine_with_its_own_valkey(
    short_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("VISUM_DATA_DIR", "/nonexistent")
    valkey = EmbeddedValkey(short_path / "valkey")
    process = valkey.start()
    try:
        with Redis.from_url(valkey.url) as redis:
            SimpleWorker([QUEUE_NAME], connection=redis, serializer=JSONSerializer).register_birth()
        assert main(["admin", "stats", "--data-dir", str(short_path), "--json"]) == 0
    finally:
        process.terminate()
        process.wait(timeout=20)
    assert json.loads(capsys.readouterr().out)["workers"] == 1


def test_a_redis_that_is_away_is_one_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("VISUM_REDIS_URL", "unix:///nonexistent/valkey.sock")
    monkeypatch.setenv("VISUM_BLOB_DIR", str(tmp_path))
    assert main(["admin", "stats"]) == 1
    assert capsys.readouterr().err.startswith("visum: Redis does not answer")
