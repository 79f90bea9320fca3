"""What the kill test hits, and from when to when it counts."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any, cast

import pytest
from redis import Redis

from contract.errors import Code
from contract.ids import new_id
from contract.records import JobError, SummaryRecord, SummaryRequest
from contract.store import SummaryStore
from resilience.faults import FAULTS, Fault, Scene, Watch, Work
from resilience.storm import Storm
from resilience.system import Part
from tests.service.wire import eventually
from tests.workers.decoders import stand_in


@pytest.fixture
def redis(redis_url: str) -> Iterator[Redis]:
    with Redis.from_url(redis_url) as client:
        yield client


@pytest.fixture
def store(redis: Redis) -> SummaryStore:
    return SummaryStore(redis)


@pytest.fixture
def running(store: SummaryStore) -> SummaryRecord:
    """A summary that a worker has begun."""
    now = datetime.now(UTC)
    summary_id = new_id(now)
    asked = SummaryRequest(
        filename="a.mp4", sha256="0" * 64, size_bytes=7, container="mp4", blob_key=summary_id
    )
    created = SummaryRecord(id=summary_id, created_at=now, request=asked)
    store.create(created, enqueue=lambda pipe, job_id: None, max_queued=10)
    begun = store.start(summary_id, "first-1-")
    assert begun is not None
    return begun


def _part(pid: int) -> Part:
    part = Part("a part", "worker", start=lambda: pytest.fail("started"))
    part.process = cast(Any, SimpleNamespace(pid=pid))
    return part


def _state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def test_work_is_well_once_another_worker_has_begun_it_and_since_then(
    redis: Redis, store: SummaryStore, running: SummaryRecord
) -> None:
    work = Work(redis, {running.id: running.generation})
    assert not work.look()
    store.lose(running.id, running.generation)
    assert not work.look()  # it waits, which is not yet well
    store.start(running.id, "second-2-")
    assert work.look()
    found = work.since
    assert work.look()
    assert work.since == found
    assert not work.idle


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_paused_workers_recovery_is_over_when_its_work_is_taken_up_not_when_the_pause_is(
    redis: Redis, store: SummaryStore, running: SummaryRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("resilience.faults.PAUSE_PAST_LEASE_S", 1.0)
    with subprocess.Popen(["sleep", "60"]) as process:
        paused = _part(process.pid)
        paused.process = process
        store.lose(running.id, running.generation)
        store.start(running.id, f"first-{process.pid}-")

        def taken_up() -> None:
            eventually(lambda: _state(process.pid) == "T")
            store.lose(running.id, running.generation + 1)
            store.start(running.id, "second-2-")

        another = threading.Thread(target=taken_up)
        another.start()
        scene = Scene(cast(Any, SimpleNamespace(redis=redis)), cast(Any, None), b"", Random(0))
        [fault] = [fault for fault in FAULTS if "paused past its lease" in fault.name]
        work = fault.strike(scene, paused)
        another.join()
        assert work is not None
        assert work.since is not None  # found while it was paused: nobody has looked after that
        assert _state(process.pid) != "T"
        process.kill()


@pytest.mark.parametrize(
    ("setback", "idle"),
    [
        (JobError(code=Code.DECODE_CRASHED, message="The decoder is gone."), False),
        (None, True),
    ],
)
def test_a_killed_decoder_has_disturbed_something_only_if_its_video_is_tried_again_for_it(
    redis: Redis, store: SummaryStore, running: SummaryRecord, setback: JobError | None, idle: bool
) -> None:
    work = Work(redis, {running.id: running.generation}, by_decoder=True)
    store.requeue(running.id, running.generation, setback=setback)
    store.start(running.id, "first-1-")
    assert work.look()
    assert work.idle is idle


def test_a_fault_waits_for_a_part_that_it_would_disturb() -> None:
    """The second worker becomes busy while the first never is: it is the one that is hit."""
    looks: list[str] = []

    def busy(scene: Scene, part: Part) -> bool:
        looks.append(part.name)
        return part.name == "worker 2" and looks.count("worker 2") > 3

    hit: list[str] = []

    def strike(scene: Scene, part: Part) -> Watch:
        hit.append(part.name)
        return Watch(lambda: True)

    parts = [Part(f"worker {number}", "worker", start=lambda: pytest.fail("started")) for number in (1, 2)]
    scene = Scene(cast(Any, SimpleNamespace(of=lambda kind: parts)), cast(Any, None), b"", Random(0))
    fault = Fault("strikes", "worker", strike, busy)
    storm = Storm(scene, 0, (0.0, 0.0), lambda line: None, faults=(fault,))
    storm.run(until=lambda: bool(hit))
    assert set(hit) == {"worker 2"}
    assert [struck.told for struck in storm.struck] == [True]


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_decoders_of_a_worker_are_told_from_everything_else_that_it_started(tmp_path: Path) -> None:
    worker = _part(os.getpid())
    others = worker.decoders()  # what other tests have started and not ended yet
    with stand_in(tmp_path, "import time; time.sleep(60)") as server, Path(os.devnull).open("rb") as video:
        server.warm()
        assert worker.decoders() == others
        process = server.start(video.fileno())
        try:
            while not (found := worker.decoders().items() - others.items()):  # it is forked in its own time
                assert server.pid is not None
            assert [parent for _, parent in found] == [server.pid]
        finally:
            process.close()
