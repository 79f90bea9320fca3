"""A sweep removes videos only where they and the records are known to belong together."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from redis import Redis

from contract.blobs import LocalBlobStore
from contract.keys import record_key
from contract.queue import open_queue
from contract.store import SummaryStore
from service.janitor import Janitor
from tests.service.conftest import RunningGateway
from tests.service.wire import MP4, eventually


def _janitor(redis_url: str, folder: Path) -> Janitor:
    redis = Redis.from_url(redis_url)
    return Janitor(
        SummaryStore(redis), LocalBlobStore(folder), open_queue(redis), orphan_s=0, repair_s=86_400
    )


@pytest.fixture
def known(gateway: RunningGateway) -> RunningGateway:
    """A gateway that has made its folder its own, with three videos."""
    eventually(lambda: gateway.parts.blobs.owner() is not None)
    for _ in range(3):
        assert gateway.post(MP4).status_code == 202
    return gateway


def test_another_redis_costs_no_video(
    known: RunningGateway, redis_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    videos = known.files()
    _janitor(redis_url.replace("db=0", "db=5"), known.parts.settings.blobs).sweep()
    assert known.files() == videos
    assert "nothing is swept" in caplog.text
    assert "Correct VISUM_REDIS_URL" in caplog.text


def test_the_redis_of_another_service_costs_no_video(
    known: RunningGateway, redis_url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    videos, other = known.files(), redis_url.replace("db=0", "db=5")
    _janitor(other, tmp_path / "other").sweep()
    _janitor(other, known.parts.settings.blobs).sweep()
    assert known.files() == videos
    assert f"belongs to service {known.parts.blobs.owner()}" in caplog.text


def test_a_redis_that_lost_everything_costs_no_video(
    known: RunningGateway, redis_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    videos = known.files()
    known.parts.redis.flushdb()
    _janitor(redis_url, known.parts.settings.blobs).sweep()
    assert known.files() == videos
    assert [record.levelno for record in caplog.records if "nothing is swept" in record.message] == [
        logging.ERROR
    ]


def test_a_folder_without_an_id_whose_videos_all_have_records_is_taken_over(
    known: RunningGateway, redis_url: str
) -> None:
    folder, videos = known.parts.settings.blobs, known.files()
    before = known.parts.blobs.owner()
    (folder / ".visum-service").unlink()
    _janitor(redis_url, folder).sweep()
    assert known.files() == videos
    assert known.parts.blobs.owner() == before


def test_a_folder_without_an_id_in_which_a_video_has_no_record_is_not(
    known: RunningGateway, redis_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    folder, videos = known.parts.settings.blobs, known.files()
    (folder / ".visum-service").unlink()
    known.parts.redis.delete(record_key(videos[0]))
    _janitor(redis_url, folder).sweep()
    assert known.files() == videos
    assert videos[0] in caplog.text
