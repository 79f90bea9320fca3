"""POST /summaries: what is taken, and how it is kept."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from contract.errors import OutcomeUnknown
from contract.records import Status, SummaryRecord
from service.uploads import display_name
from tests.service.conftest import RunningGateway, StartGateway
from tests.service.wire import (
    FORM_ENDS,
    MP4,
    connection,
    eventually,
    field,
    file_begins,
    post_head,
    status_of,
)


def test_a_video_is_stored_and_queued(gateway: RunningGateway) -> None:
    answer = gateway.post(
        MP4, "clip.mp4", domain="general", instructions="Say it briefly.", seed=7, max_new_tokens=9
    )
    accepted = answer.json()
    assert answer.status_code == 202
    assert answer.headers["Location"] == accepted["links"]["self"] == f"/summaries/{accepted['id']}"
    assert int(answer.headers["Retry-After"]) >= 1
    request = gateway.store.get(accepted["id"]).request
    assert request.model_dump() == {
        "filename": "clip.mp4",
        "sha256": hashlib.sha256(MP4).hexdigest(),
        "size_bytes": len(MP4),
        "container": "mp4",
        "blob_key": accepted["id"],
        "domain": "general",
        "instructions": "Say it briefly.",
        "max_new_tokens": 9,
        "seed": 7,
        "adapter_version": None,
    }
    with gateway.parts.blobs.open_read(request.blob_key) as video:
        assert video.read() == MP4
    assert gateway.parts.queue.job_ids == [accepted["id"]]


def test_a_large_video_is_hashed_as_it_streams(gateway: RunningGateway) -> None:
    content = MP4 + bytes(5_000_000)
    record = gateway.store.get(gateway.post(content).json()["id"])
    assert record.request.sha256 == hashlib.sha256(content).hexdigest()
    assert gateway.parts.blobs.size(record.id) == len(content)


def test_the_file_may_come_before_the_fields(gateway: RunningGateway) -> None:
    body = file_begins() + MP4 + b"\r\n" + field("domain", "general")[:-2] + FORM_ENDS
    with connection(gateway.url) as wire:
        wire.sendall(post_head(len(body)) + body)
        assert status_of(wire) == 202
    assert gateway.store.page().records[0].request.domain == "general"


def test_a_body_without_a_length_is_taken(gateway: RunningGateway) -> None:
    body = file_begins() + MP4 + FORM_ENDS
    with connection(gateway.url) as wire:
        wire.sendall(post_head(None) + b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body))
        assert status_of(wire) == 202


def test_empty_fields_count_as_not_given(gateway: RunningGateway) -> None:
    answer = gateway.post(MP4, domain="", instructions="  ", max_new_tokens="", seed="", adapter_version="")
    request = gateway.store.get(answer.json()["id"]).request
    assert (request.domain, request.instructions, request.max_new_tokens, request.seed) == (
        "auto",
        None,
        None,
        None,
    )


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("clip.mp4", "clip.mp4"),
        ("../../etc/passwd", "passwd"),
        ("C:\\Users\\me\\clip.mp4", "clip.mp4"),
        ("a\r\nb\x00\x1b[31m.mp4", "ab[31m.mp4"),
        ("gpj\u202e4pm.exe", "gpj4pm.exe"),
        ("x" * 400, "x" * 255),
        ("", "video"),
        ("/", "video"),
        (None, "video"),
    ],
)
def test_a_filename_is_made_fit_to_be_shown(given: str | None, shown: str) -> None:
    assert display_name(given) == shown


def test_the_name_of_an_uploaded_file_is_stripped_before_it_is_kept(gateway: RunningGateway) -> None:
    """Here where it comes in: whatever shows it later, a log, a terminal or a page, was not asked to be careful."""
    answer = gateway.post(MP4, "../../etc/a\x1b[31m\u202eb.mp4")
    shown = gateway.http.get(answer.headers["Location"]).json()["request"]["filename"]
    assert shown == gateway.store.get(answer.json()["id"]).request.filename == "a[31mb.mp4"


class TestIdempotency:
    def test_the_same_request_again_gets_the_same_answer(self, gateway: RunningGateway) -> None:
        first, second = (gateway.post(MP4, key="k", domain="general") for _ in range(2))
        assert (second.status_code, second.content) == (first.status_code, first.content)
        assert second.headers["Location"] == first.headers["Location"]
        assert gateway.parts.queue.job_ids == [first.json()["id"]]
        assert gateway.files() == [first.json()["id"]]

    def test_the_answer_stays_the_same_when_the_work_is_done(self, gateway: RunningGateway) -> None:
        first = gateway.post(MP4, key="k")
        gateway.store.request_cancel(first.json()["id"])
        assert gateway.post(MP4, key="k").content == first.content

    @pytest.mark.parametrize(
        ("content", "name", "fields"),
        [
            (MP4 + b"x", "a.mp4", {}),
            (MP4, "b.mp4", {}),
            (MP4, "a.mp4", {"domain": "general"}),
            (MP4, "a.mp4", {"seed": 1}),
        ],
    )
    def test_another_request_with_the_key_is_a_conflict(
        self, gateway: RunningGateway, content: bytes, name: str, fields: dict[str, object]
    ) -> None:
        first = gateway.post(MP4, key="k").json()["id"]
        answer = gateway.post(content, name, key="k", **fields)
        assert (answer.status_code, answer.json()["code"]) == (409, "request.idempotency_conflict")
        assert gateway.files() == [first]

    @pytest.mark.parametrize("content", [MP4, MP4 + b"x"])
    def test_a_key_whose_summary_was_deleted_begins_anew(
        self, gateway: RunningGateway, content: bytes
    ) -> None:
        path = gateway.post(MP4, key="k").headers["Location"]
        for status in (200, 204):  # canceled, then removed
            assert gateway.http.delete(path).status_code == status
        again = gateway.post(content, key="k")
        assert again.status_code == 202
        assert gateway.http.get(again.headers["Location"]).json()["status"] == "queued"
        assert gateway.post(content, key="k").content == again.content

    def test_a_key_whose_summary_has_expired_begins_anew(self, start_gateway: StartGateway) -> None:
        gateway = start_gateway(retention_s=1, sweep_s=3600)
        path = gateway.post(MP4, key="k").headers["Location"]
        gateway.http.delete(path)
        eventually(lambda: gateway.http.get(path).status_code == 410)
        again = gateway.post(MP4, key="k").headers["Location"]
        assert gateway.http.get(again).status_code == 200

    def test_many_at_once_are_one(self, gateway: RunningGateway) -> None:
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda _: gateway.post(MP4, key="k"), range(8)))
        assert {answer.status_code for answer in answers} == {202}
        ids = {answer.json()["id"] for answer in answers}
        assert len(ids) == 1
        assert gateway.files() == sorted(ids) == gateway.parts.queue.job_ids

    @pytest.mark.parametrize("key", ["", "x" * 256])
    def test_a_key_that_can_not_be_kept_is_refused(self, gateway: RunningGateway, key: str) -> None:
        answer = gateway.post(MP4, key=key)
        assert (answer.status_code, answer.json()["code"]) == (400, "request.malformed")


class TestBounds:
    def test_a_full_queue_refuses_until_there_is_room(self, start_gateway: StartGateway) -> None:
        gateway = start_gateway(max_queue=2)
        first = gateway.post(MP4, key="k").json()["id"]
        gateway.post(MP4)
        refused = gateway.post(MP4)
        assert (refused.status_code, refused.json()["code"]) == (503, "service.queue_full")
        assert int(refused.headers["Retry-After"]) >= 1
        assert len(gateway.files()) == 2
        assert gateway.post(MP4, key="k").json()["id"] == first
        gateway.store.start(first, "w")
        assert gateway.post(MP4).status_code == 202

    def test_the_bound_holds_against_many_at_once(self, start_gateway: StartGateway) -> None:
        gateway = start_gateway(max_queue=3)
        with ThreadPoolExecutor(8) as pool:
            statuses = sorted(pool.map(lambda _: gateway.post(MP4).status_code, range(8)))
        assert statuses == [202] * 3 + [503] * 5
        assert gateway.store.counts()[Status.QUEUED] == len(gateway.files()) == 3

    def test_the_floor_of_free_disk_is_kept(self, start_gateway: StartGateway) -> None:
        gateway = start_gateway(min_free_bytes=2**62)
        answer = gateway.post(MP4)
        assert (answer.status_code, answer.json()["code"]) == (507, "service.storage_full")
        assert gateway.files() == []


def test_a_video_whose_job_may_be_queued_is_kept_for_it(
    gateway: RunningGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Redis broke off in the middle of the write: if there is no job after all, the sweep removes the video."""
    create = gateway.store.create

    def break_off(record: SummaryRecord, **given: Any) -> str:
        create(record, **given)
        raise OutcomeUnknown(record.id)

    monkeypatch.setattr(gateway.store, "create", break_off)
    answer = gateway.post(MP4)
    assert (answer.status_code, answer.json()["code"]) == (503, "service.queue_unavailable")
    assert gateway.files() == gateway.parts.queue.job_ids
