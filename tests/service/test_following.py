"""GET /summaries, GET and DELETE /summaries/{id}, with a worker's part played on the store."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import httpx
import pytest

from contract import keys
from contract.errors import Code
from contract.ids import created_at, new_id
from contract.records import JobError, Progress, Stage, Status
from contract.result import SummaryResult
from tests.service.conftest import RunningGateway, StartGateway
from tests.service.wire import MP4, eventually


@pytest.fixture
def path(gateway: RunningGateway) -> str:
    """A summary that waits."""
    return gateway.post(MP4, "clip.mp4").headers["Location"]


def id_of(path: str) -> str:
    return path.rpartition("/")[2]


class TestFollowing:
    def test_a_waiting_summary_shows_its_position(self, gateway: RunningGateway, path: str) -> None:
        second = gateway.post(MP4).headers["Location"]
        first, answer = gateway.http.get(path).json(), gateway.http.get(second)
        assert (first["status"], first["position"], answer.json()["position"]) == ("queued", 1, 2)
        assert first["request"]["filename"] == "clip.mp4"
        assert int(answer.headers["Retry-After"]) >= 1

    def test_a_running_one_shows_its_progress(self, gateway: RunningGateway, path: str) -> None:
        gateway.store.start(id_of(path), "w")
        gateway.store.progress(id_of(path), 1, Progress(stage=Stage.GENERATE, done=3, total=9))
        answer = gateway.http.get(path)
        assert answer.json()["progress"] == {"stage": "generate", "done": 3, "total": 9}
        assert (answer.json()["position"], answer.json()["attempts"]) == (None, 1)
        assert "Retry-After" in answer.headers

    def test_a_finished_one_shows_its_result(
        self, gateway: RunningGateway, path: str, result: SummaryResult
    ) -> None:
        gateway.store.start(id_of(path), "w")
        gateway.store.succeed(id_of(path), 1, result)
        answer = gateway.http.get(path)
        assert answer.json()["result"] == result.model_dump(mode="json")
        assert answer.json()["expires_at"] is not None
        assert "Retry-After" not in answer.headers

    def test_a_failed_one_shows_code_and_sentence(self, gateway: RunningGateway, path: str) -> None:
        gateway.store.start(id_of(path), "w")
        gateway.store.fail(id_of(path), 1, JobError(code=Code.VIDEO_NO_FRAMES, message="It has no frames."))
        shown = gateway.http.get(path).json()
        assert (shown["status"], shown["error"]) == (
            "failed",
            {"code": "video.no_frames", "message": "It has no frames."},
        )

    def test_what_is_between_gateway_and_worker_is_not_shown(
        self, gateway: RunningGateway, path: str
    ) -> None:
        gateway.store.start(id_of(path), "some-host.1234")
        body = gateway.http.get(path).text
        assert "some-host" not in body
        assert "blob_key" not in body

    def test_any_number_may_ask_at_once(self, gateway: RunningGateway, path: str) -> None:
        async def ask() -> list[int]:
            limits = httpx.Limits(max_connections=None)
            async with httpx.AsyncClient(
                base_url=gateway.url, timeout=60, limits=limits, trust_env=False
            ) as http:
                return [
                    answer.status_code
                    for answer in await asyncio.gather(*(http.get(path) for _ in range(300)))
                ]

        assert set(asyncio.run(ask())) == {200}

    def test_an_unchanged_answer_is_not_sent_again(self, gateway: RunningGateway, path: str) -> None:
        etag = gateway.http.get(path).headers["ETag"]
        for sent in (etag, f"W/{etag}", f'"other", {etag}', "*"):
            answer = gateway.http.get(path, headers={"If-None-Match": sent})
            assert (answer.status_code, answer.content, answer.headers["ETag"]) == (304, b"", etag)
            assert "Retry-After" in answer.headers

    def test_a_changed_answer_has_another_etag(self, gateway: RunningGateway, path: str) -> None:
        etag = gateway.http.get(path).headers["ETag"]
        gateway.store.start(id_of(path), "w")
        answer = gateway.http.get(path, headers={"If-None-Match": etag})
        assert answer.status_code == 200
        assert answer.headers["ETag"] != etag

    @pytest.mark.parametrize("summary_id", ["x", "..%2f..", "01K4Z7QHR8V2M6N3P5T9W1XBYC", "0" * 3000])
    def test_an_unknown_id_is_not_found(self, gateway: RunningGateway, summary_id: str) -> None:
        for ask in (gateway.http.get, gateway.http.delete):
            answer = ask(f"/summaries/{summary_id}")
            assert answer.status_code == 404
            assert answer.headers["Content-Type"] == "application/problem+json"

    def test_an_unreadable_record_is_our_fault_and_tells_no_internals(
        self, gateway: RunningGateway, path: str
    ) -> None:
        gateway.parts.redis.set(keys.record_key(id_of(path)), b'{"schema_version": 9, "secret": 1}')
        answer = gateway.http.get(path)
        assert (answer.status_code, answer.json()["code"]) == (500, "summary.unreadable")
        assert "secret" not in answer.text


class TestListing:
    def test_pages_are_newest_first(self, gateway: RunningGateway) -> None:
        ids = [gateway.post(MP4).json()["id"] for _ in range(3)]
        ids.sort(reverse=True)
        first = gateway.http.get("/summaries", params={"limit": 2}).json()
        second = gateway.http.get("/summaries", params={"limit": 2, "cursor": first["cursor"]}).json()
        assert [line["id"] for line in first["summaries"] + second["summaries"]] == ids
        assert second["cursor"] is None

    def test_their_order_is_by_the_clock_that_all_gateways_share(
        self, gateway: RunningGateway, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        noon = datetime(2026, 1, 1, 12, tzinfo=UTC)
        monkeypatch.setattr(gateway.store, "_now", lambda: noon)
        summary_id = gateway.post(MP4).json()["id"]
        assert created_at(summary_id) == gateway.store.get(summary_id).created_at == noon

    def test_a_line_has_the_summary_and_not_the_gates(
        self, gateway: RunningGateway, path: str, result: SummaryResult
    ) -> None:
        gateway.store.start(id_of(path), "w")
        gateway.store.succeed(id_of(path), 1, result)
        (line,) = gateway.http.get("/summaries", params={"status": "succeeded", "domain": "traffic"}).json()[
            "summaries"
        ]
        assert (line["id"], line["summary"], line["domain"]) == (id_of(path), result.summary, "traffic")
        assert "gates" not in line
        assert gateway.http.get("/summaries", params={"status": "failed"}).json()["summaries"] == []

    @pytest.mark.parametrize(
        ("name", "value"),
        [("status", "done"), ("limit", "0"), ("limit", "x"), ("limit", "201"), ("cursor", "x")],
    )
    def test_a_bad_parameter_is_named(self, gateway: RunningGateway, name: str, value: str) -> None:
        answer = gateway.http.get("/summaries", params={name: value})
        assert answer.status_code == 422
        assert [found["field"] for found in answer.json()["errors"]] == [name]


class TestDeleting:
    def test_waiting_work_is_canceled_at_once(self, gateway: RunningGateway, path: str) -> None:
        answer = gateway.http.delete(path)
        assert (answer.status_code, answer.json()["status"]) == (200, "canceled")
        assert gateway.parts.queue.job_ids == []

    def test_running_work_is_told_to_stop(self, gateway: RunningGateway, path: str) -> None:
        gateway.store.start(id_of(path), "w")
        answer = gateway.http.delete(path)
        assert (answer.status_code, answer.json()["status"]) == (202, "running")
        assert answer.json()["cancel_requested"]
        assert gateway.store.cancel_requested(id_of(path))
        gateway.store.finish_canceled(id_of(path), 1)
        assert gateway.http.get(path).json()["status"] == "canceled"

    def test_work_that_is_done_before_it_can_be_told_to_stop_is_deleted(
        self,
        gateway: RunningGateway,
        path: str,
        result: SummaryResult,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        gateway.store.start(id_of(path), "w")
        cancel = gateway.store.request_cancel

        def too_late(summary_id: str) -> Status:
            gateway.store.succeed(summary_id, 1, result)
            return cancel(summary_id)

        monkeypatch.setattr(gateway.store, "request_cancel", too_late)
        assert gateway.http.delete(path).status_code == 204
        assert gateway.http.get(path).status_code == 410
        assert gateway.files() == []

    def test_finished_work_is_deleted_with_its_video(self, gateway: RunningGateway, path: str) -> None:
        gateway.http.delete(path)
        assert gateway.files() == [id_of(path)]
        answer = gateway.http.delete(path)
        assert (answer.status_code, answer.content) == (204, b"")
        assert gateway.files() == []
        for ask in (gateway.http.get, gateway.http.delete):
            assert (ask(path).status_code, ask(path).json()["code"]) == (410, "summary.gone")


class TestExpiry:
    def test_an_expired_summary_goes_with_its_video_and_answers_gone(
        self, start_gateway: StartGateway
    ) -> None:
        gateway = start_gateway(retention_s=1, sweep_s=0.05)
        path = gateway.post(MP4).headers["Location"]
        waiting = gateway.post(MP4).json()["id"]
        gateway.http.delete(path)
        eventually(lambda: gateway.files() == [waiting])
        assert gateway.http.get(path).status_code == 410

    def test_a_tombstone_does_not_stand_for_ever(self, start_gateway: StartGateway) -> None:
        gateway = start_gateway(tombstone_s=1)
        path = gateway.post(MP4).headers["Location"]
        for _ in range(2):
            gateway.http.delete(path)
        assert gateway.http.get(path).status_code == 410
        eventually(lambda: gateway.http.get(path).status_code == 404)

    def test_an_id_made_up_from_the_right_letters_was_never_there(self, gateway: RunningGateway) -> None:
        record = gateway.store.get(gateway.post(MP4).json()["id"])
        assert gateway.http.get(f"/summaries/{new_id(record.created_at)}").status_code == 404
