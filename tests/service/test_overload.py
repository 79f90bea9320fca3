"""More than there is room for: refused early, with a wait that was measured, and room again afterwards."""

from __future__ import annotations

import itertools
import select
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis import Redis
from rq import SimpleWorker

from contract.keys import SERVICE_SECONDS
from contract.queue import SLOTS_FIELD
from contract.result import SummaryResult
from tests.service.conftest import RunningGateway, StartGateway
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


class TestFullQueue:
    def _full(self, start_gateway: StartGateway, redis: Redis, seconds: float) -> int:
        redis.lpush(SERVICE_SECONDS, *[seconds] * 4)
        gateway = start_gateway(max_queue=3)
        for _ in range(3):
            assert gateway.post(MP4).status_code == 202
        refused = gateway.post(MP4)
        assert (refused.status_code, refused.json()["code"]) == (503, "service.queue_full")
        return int(refused.headers["Retry-After"])

    @pytest.fixture
    def redis(self, redis_url: str) -> Iterator[Redis]:
        with Redis.from_url(redis_url) as client:
            yield client

    @pytest.mark.parametrize(
        ("seconds", "slots", "expected"),
        [
            pytest.param(10.0, 2, 15, id="depth-times-mean-over-slots"),
            pytest.param(0.001, 2, 1, id="at-least-a-second"),
            pytest.param(9_000.0, 1, 300, id="at-most-five-minutes"),
        ],
    )
    def test_the_wait_is_reckoned_from_what_summaries_took(
        self,
        start_gateway: StartGateway,
        live_worker: SimpleWorker,
        redis: Redis,
        seconds: float,
        slots: int,
        expected: int,
    ) -> None:
        redis.hset(live_worker.key, SLOTS_FIELD, slots)
        assert self._full(start_gateway, redis, seconds) == expected

    def test_without_a_worker_the_wait_is_the_longest(
        self, start_gateway: StartGateway, redis: Redis
    ) -> None:
        assert self._full(start_gateway, redis, 1.0) == 300

    def test_a_finished_summary_is_a_measurement(
        self, gateway: RunningGateway, redis: Redis, result: SummaryResult
    ) -> None:
        summary_id = gateway.post(MP4).json()["id"]
        gateway.store.start(summary_id, "w")
        gateway.store.succeed(summary_id, 1, result)
        (seconds,) = redis.lrange(SERVICE_SECONDS, 0, -1)
        assert 0 <= float(seconds) < 30


class TestManyUploads:
    def test_one_more_than_may_be_read_at_once_is_told_to_wait(self, start_gateway: StartGateway) -> None:
        gateway = start_gateway(max_uploads=1)
        begun = file_begins() + MP4
        with connection(gateway.url) as slow:
            slow.sendall(post_head(len(begun) + len(FORM_ENDS)) + begun)
            eventually(lambda: gateway.parts.upload_room.outstanding_bytes > 0)
            refused = gateway.post(MP4)
            assert (refused.status_code, refused.json()["code"]) == (503, "service.too_many_uploads")
            assert refused.headers["Retry-After"] == "1"  # nothing was measured yet
            slow.sendall(FORM_ENDS)
            assert status_of(slow) == 202
        assert gateway.post(MP4).status_code == 202

    def test_the_wait_is_reckoned_from_what_uploads_took(
        self, start_gateway: StartGateway, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        times = itertools.count(0, 14.0)
        gateway = start_gateway(max_uploads=1)
        monkeypatch.setattr(gateway.parts.upload_room, "_clock", lambda: next(times))
        assert gateway.post(MP4).status_code == 202
        with gateway.parts.upload_room.place("default", 0):
            assert gateway.post(MP4).headers["Retry-After"] == "14"

    def test_a_broken_upload_gives_its_place_back(self, start_gateway: StartGateway) -> None:
        gateway = start_gateway(max_uploads=1)
        with connection(gateway.url) as broken:
            broken.sendall(post_head(10_000) + file_begins() + MP4_HEAD)
            eventually(lambda: gateway.parts.upload_room.outstanding_bytes > 0)
        eventually(lambda: gateway.post(MP4).status_code == 202)

    def test_what_others_have_announced_counts_against_the_floor(
        self, start_gateway: StartGateway, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        gateway = start_gateway(min_free_bytes=1_000, max_upload_bytes=2**20)
        monkeypatch.setattr(gateway.parts.blobs, "free_bytes", lambda: 100_000)
        with connection(gateway.url) as first:
            first.sendall(post_head(95_000) + file_begins() + MP4_HEAD)
            eventually(lambda: gateway.parts.upload_room.outstanding_bytes > 90_000)
            refused = gateway.post(MP4 * 2)
            assert (refused.status_code, refused.json()["code"]) == (507, "service.storage_full")
        eventually(lambda: gateway.post(MP4 * 2).status_code == 202)


class TestDripping:
    @pytest.fixture
    def gateway(self, start_gateway: StartGateway) -> RunningGateway:
        return start_gateway(upload_idle_s=0.3, upload_bytes_per_s=2**18)

    def test_an_upload_that_is_too_slow_on_average_is_cut_though_it_is_never_silent(
        self, gateway: RunningGateway
    ) -> None:
        with connection(gateway.url) as wire:
            wire.sendall(post_head(50_000_000) + file_begins() + MP4)

            def dripped_until_answered() -> bool:
                wire.sendall(b"x")
                return bool(select.select([wire], [], [], 0)[0])

            eventually(dripped_until_answered)
            assert status_of(wire) == 408
        eventually(lambda: gateway.files() == [])

    def test_one_that_is_fast_enough_is_not(self, gateway: RunningGateway) -> None:
        begun = file_begins() + MP4 + bytes(2**20)
        with connection(gateway.url) as wire:
            wire.sendall(post_head(len(begun) + 1 + len(FORM_ENDS)) + begun)
            assert not select.select([wire], [], [], 0.25)[0]
            wire.sendall(b"x")
            assert not select.select([wire], [], [], 0.25)[0]  # longer than the grace by now
            wire.sendall(FORM_ENDS)
            assert status_of(wire) == 202


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 4 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = shutil.which("mount")
    options = ["-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)]
    if mount is None or subprocess.run([mount, *options], capture_output=True, check=False).returncode:
        pytest.skip("a small disk can be mounted by root alone")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


class TestFullDisk:
    def test_uploads_beyond_the_disk_are_refused_and_leave_no_piece(
        self, start_gateway: StartGateway, small_disk: Path
    ) -> None:
        gateway = start_gateway(blob_dir=small_disk)
        large = MP4 + bytes(3 * 2**20)
        statuses: list[int] = []

        def upload() -> None:
            statuses.append(gateway.post(large).status_code)

        threads = [threading.Thread(target=upload) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert set(statuses) <= {202, 507}
        assert statuses.count(202) <= 1
        assert len(gateway.files()) == statuses.count(202)
        for path in list(small_disk.iterdir()):
            gateway.http.delete(f"/summaries/{path.name}")
            gateway.http.delete(f"/summaries/{path.name}")
        assert gateway.post(large).status_code == 202

    def test_a_full_disk_shows_in_readyz(self, start_gateway: StartGateway, small_disk: Path) -> None:
        gateway = start_gateway(blob_dir=small_disk)
        with pytest.raises(OSError, match="No space"):
            (small_disk / "filler").write_bytes(bytes(5 * 2**20))
        storage = gateway.http.get("/readyz").json()["storage"]
        assert storage == {"ok": False, "detail": "can't be written (StorageFull)"}
        assert gateway.post(MP4).json()["code"] == "service.storage_full"
