"""A crash between any two effects leaves something that a sweeper repairs."""

from __future__ import annotations

import signal

import httpx
import pytest

from contract.records import Status
from tests.resilience.conftest import Parts, post, wait_until

COMMIT = "contract.blobs:_LocalWriter.commit"
STORE = "contract.store:SummaryStore"


class TestSubmitting:
    """Half a file, then the file, then record and job together, then the answer."""

    def _crash(self, parts: Parts, moment: str, place: str) -> None:
        dying, url = parts.gateway(moment, place, module="tests.resilience.dying_gateway", sweep_s=3600)
        with pytest.raises(httpx.TransportError):
            post(url)
        assert dying.wait(timeout=20) == 1

    def test_half_an_upload_is_swept(self, parts: Parts) -> None:
        self._crash(parts, "before", COMMIT)
        assert [name.rpartition(".")[2] for name in parts.files()] == ["partial"]
        parts.gateway()
        wait_until(lambda: parts.files() == [], "half the upload is gone")

    @pytest.mark.parametrize(("moment", "place"), [("after", COMMIT), ("before", f"{STORE}.create")])
    def test_a_video_without_a_record_is_swept(self, parts: Parts, moment: str, place: str) -> None:
        self._crash(parts, moment, place)
        assert len(parts.files()) == 1
        parts.gateway()
        wait_until(lambda: parts.files() == [], "the video is gone")
        assert sum(parts.store.counts().values()) == 0

    def test_a_summary_whose_answer_was_lost_is_done_and_answers_the_repeated_request(
        self, parts: Parts
    ) -> None:
        self._crash(parts, "after", f"{STORE}.create")
        (waiting,) = parts.queue.job_ids
        _, url = parts.gateway()
        assert post(url).json()["id"] == waiting
        parts.worker()
        assert parts.ended(waiting).status is Status.SUCCEEDED
        assert parts.files() == [waiting]


class TestDeleting:
    """The record goes first, then its video; a canceled one leaves the queue last."""

    def test_a_video_whose_record_is_gone_is_swept(self, parts: Parts) -> None:
        dying, url = parts.gateway(
            "after", f"{STORE}.delete", module="tests.resilience.dying_gateway", sweep_s=3600
        )
        parts.worker()
        path = post(url).headers["Location"]
        parts.ended(path.rpartition("/")[2])
        with pytest.raises(httpx.TransportError):
            httpx.delete(url + path, trust_env=False)
        assert dying.wait(timeout=20) == 1
        assert len(parts.files()) == 1
        parts.gateway()
        wait_until(lambda: parts.files() == [], "the video is gone")

    def test_a_canceled_summary_whose_job_is_still_queued_is_not_done(self, parts: Parts) -> None:
        dying, url = parts.gateway(
            "after", f"{STORE}.request_cancel", module="tests.resilience.dying_gateway"
        )
        path = post(url).headers["Location"]
        with pytest.raises(httpx.TransportError):
            httpx.delete(url + path, trust_env=False)
        dying.wait(timeout=20)
        parts.worker()
        wait_until(lambda: not any(parts.books().values()), "the queue's lists are empty")
        record = parts.store.get(path.rpartition("/")[2])
        assert (record.status, record.attempts) == (Status.CANCELED, 0)


class TestWorking:
    """Taken, leased, begun, done, closed in RQ's books: whatever the last effect was, one result comes of it."""

    @pytest.mark.parametrize(
        ("moment", "place", "attempts"),
        [
            pytest.param("before", "workers.consumer:Consumer._launch", 1, id="taken"),
            pytest.param("before", "workers.consumer:Consumer.perform_job", 1, id="leased"),
            pytest.param("after", f"{STORE}.start", 2, id="begun"),
            pytest.param("before", f"{STORE}.succeed", 2, id="done-not-written"),
            pytest.param("after", f"{STORE}.succeed", 1, id="written-books-open"),
        ],
    )
    def test_a_crash_costs_no_summary(self, parts: Parts, moment: str, place: str, attempts: int) -> None:
        _, url = parts.gateway()
        dying = parts.worker("--die", moment, place)
        summary_id = post(url).json()["id"]
        assert dying.wait(timeout=30) == 1, parts.log.read_text()
        written = parts.store.get(summary_id)
        parts.worker()
        record = parts.ended(summary_id)
        assert (record.status, record.attempts) == (Status.SUCCEEDED, attempts)
        if written.status.finished:
            assert record == written
        wait_until(lambda: not any(parts.books().values()), f"the books are closed: {parts.books()}")

    def test_a_job_handed_back_in_the_record_alone_goes_on(self, parts: Parts) -> None:
        _, url = parts.gateway()
        dying = parts.worker("--seconds", "60", "--die", "after", f"{STORE}.requeue", drain_seconds=0)
        summary_id = post(url).json()["id"]
        wait_until(lambda: parts.store.get(summary_id).status is Status.RUNNING, "it runs")
        dying.send_signal(signal.SIGTERM)
        assert dying.wait(timeout=30) == 1
        assert parts.store.get(summary_id).status is Status.QUEUED
        parts.worker()
        assert parts.ended(summary_id).status is Status.SUCCEEDED
        wait_until(lambda: not any(parts.books().values()), "the books are closed")

    @pytest.mark.parametrize("status", [Status.QUEUED, Status.RUNNING])
    def test_a_record_whose_job_is_gone_gets_another(self, parts: Parts, status: Status) -> None:
        _, url = parts.gateway()
        summary_id = post(url).json()["id"]
        if status is Status.RUNNING:
            parts.store.start(summary_id, "somebody")
        parts.redis.delete(f"rq:job:{summary_id}", parts.queue.key)
        parts.worker()
        assert parts.ended(summary_id).status is Status.SUCCEEDED

    def test_a_job_whose_record_is_gone_leaves_the_queue(self, parts: Parts) -> None:
        _, url = parts.gateway()
        summary_id = post(url).json()["id"]
        parts.redis.delete(f"visum:summary:{summary_id}")
        parts.worker()
        wait_until(lambda: not any(parts.books().values()), "the queue's lists are empty")
        assert not parts.redis.exists(f"rq:job:{summary_id}")
