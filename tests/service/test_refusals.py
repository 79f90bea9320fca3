"""POST /summaries: what is refused, with which words, and that nothing of it stays."""

from __future__ import annotations

import select
import subprocess
from pathlib import Path

import pytest
from redis import Redis

from tests.service.conftest import RunningGateway, StartGateway
from tests.service.wire import (
    FORM_ENDS,
    MP4,
    MP4_HEAD,
    connection,
    eventually,
    field,
    file_begins,
    post_head,
    status_of,
)


@pytest.fixture(autouse=True)
def _nothing_stays(gateway: RunningGateway) -> object:
    """Every test here ends with an empty folder and an empty queue."""
    yield
    assert gateway.files() == []
    assert gateway.store.page().records == ()
    assert gateway.parts.queue.job_ids == []


@pytest.mark.parametrize(
    ("content", "code", "words"),
    [
        (b"", "video.empty", "empty"),
        (b"just some text\n", "video.unsupported_container", "a text file"),
        (b"#EXTM3U\nhttp://127.0.0.1/x.ts\n", "video.unsupported_container", "an HLS playlist"),
        (b"ffconcat version 1.0\nfile /etc/passwd\n", "video.unsupported_container", "a concat script"),
        (b"\xff\xd8\xff\xe0" + bytes(4000), "video.unsupported_container", "a JPEG image"),
        (b"\x89PNG\r\n\x1a\n" + bytes(2_000_000), "video.unsupported_container", "a PNG image"),
        (bytes(range(256)) * 40, "video.unsupported_container", "no video container"),
    ],
)
def test_what_is_no_video_is_told_by_its_bytes(
    gateway: RunningGateway, content: bytes, code: str, words: str
) -> None:
    answer = gateway.post(content, "movie.mp4")
    assert (answer.status_code, answer.json()["code"]) == (415, code)
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert words in answer.json()["detail"]


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("domain", "trafic", "there are auto, general"),
        ("max_new_tokens", "0", "must be from 1 to 1024"),
        ("max_new_tokens", "many", "not a whole number"),
        ("max_new_tokens", "1e3", "not a whole number"),
        ("seed", "-1", "must be from 0"),
        ("seed", "9" * 5000, "must be from 0"),
        ("seed", "٣", "not a whole number"),
        ("adapter_version", "2", "needs a domain with adapters"),
        ("instructions", "x" * 2001, "at most 2000"),
        ("instructions", "x" * 70_000, "longer than"),
        ("colour", "red", "there is no such field"),
    ],
)
def test_a_bad_field_is_named(gateway: RunningGateway, name: str, value: str, words: str) -> None:
    answer = gateway.post(MP4, **{name: value})
    problem = answer.json()
    assert (answer.status_code, problem["code"]) == (422, "request.invalid_field")
    assert [found["field"] for found in problem["errors"]] == [name]
    assert words in problem["errors"][0]["message"]


@pytest.mark.parametrize(
    ("body", "named"),
    [
        (field("domain", "auto")[:-2] + FORM_ENDS, "file"),
        (file_begins() + MP4 + b"\r\n" + file_begins() + MP4 + FORM_ENDS, "file"),
        (field("seed", "1") + field("seed", "2") + file_begins() + MP4 + FORM_ENDS, "seed"),
    ],
    ids=["missing", "two files", "twice"],
)
def test_a_field_that_is_missing_or_doubled_is_named(
    gateway: RunningGateway, body: bytes, named: str
) -> None:
    answer = gateway.http.post(
        "/summaries", content=body, headers={"Content-Type": "multipart/form-data; boundary=visum-test"}
    )
    assert answer.status_code == 422
    assert [found["field"] for found in answer.json()["errors"]] == [named]


def test_a_bad_field_after_the_file_takes_the_stored_bytes_with_it(gateway: RunningGateway) -> None:
    body = file_begins() + MP4 + bytes(3_000_000) + b"\r\n" + field("domain", "nope")[:-2] + FORM_ENDS
    with connection(gateway.url) as wire:
        wire.sendall(post_head(len(body)) + body)
        assert status_of(wire) == 422


@pytest.mark.parametrize(
    "body", [b"", b"nonsense", file_begins() + MP4], ids=["empty", "nonsense", "cut off"]
)
def test_a_broken_form_is_malformed(gateway: RunningGateway, body: bytes) -> None:
    answer = gateway.http.post(
        "/summaries", content=body, headers={"Content-Type": "multipart/form-data; boundary=visum-test"}
    )
    assert (answer.status_code, answer.json()["code"]) == (400, "request.malformed")


def test_a_body_that_is_no_form_is_an_unsupported_type(gateway: RunningGateway) -> None:
    answer = gateway.http.post("/summaries", json={"file": "x"})
    assert (answer.status_code, answer.json()["code"]) == (415, "request.not_multipart")


class TestTooLarge:
    @pytest.fixture
    def gateway(self, start_gateway: StartGateway) -> RunningGateway:
        return start_gateway(max_upload_bytes=3_000_000)

    def test_it_is_refused_before_it_is_sent_where_it_says_so(self, gateway: RunningGateway) -> None:
        with connection(gateway.url) as wire:
            wire.sendall(post_head(10**12))
            assert status_of(wire) == 413

    def test_it_is_refused_while_it_is_sent(self, gateway: RunningGateway) -> None:
        with connection(gateway.url) as wire:
            wire.sendall(post_head(None))
            piece = MP4_HEAD + bytes(2_000_000)
            for part in (file_begins(), piece, piece):
                wire.sendall(b"%x\r\n%b\r\n" % (len(part), part))
            assert status_of(wire) == 413

    def test_a_polite_client_that_sends_on_hears_why(self, gateway: RunningGateway) -> None:
        answer = gateway.post(MP4 + bytes(20_000_000))
        assert (answer.status_code, answer.json()["code"]) == (413, "request.too_large")

    def test_padding_around_the_file_counts_too(self, gateway: RunningGateway) -> None:
        with connection(gateway.url) as wire:
            wire.sendall(post_head(None))
            for _ in range(6):
                wire.sendall(b"%x\r\n%b\r\n" % (1_000_000, b"\r\n" * 500_000))
            assert status_of(wire) == 413

    def test_a_video_of_exactly_the_size_is_taken(self, gateway: RunningGateway) -> None:
        answer = gateway.post(MP4 + bytes(3_000_000 - len(MP4)))
        assert answer.status_code == 202
        summary = answer.headers["Location"]
        assert [gateway.http.delete(summary).status_code for _ in range(2)] == [200, 204]


def test_a_client_that_goes_away_leaves_nothing(gateway: RunningGateway) -> None:
    with connection(gateway.url) as wire:
        wire.sendall(post_head(50_000_000) + file_begins() + MP4 + bytes(4_000_000))
        eventually(lambda: len(gateway.files()) == 1)
    eventually(lambda: gateway.files() == [])


class TestSilence:
    @pytest.fixture
    def gateway(self, start_gateway: StartGateway) -> RunningGateway:
        return start_gateway(upload_idle_s=0.2)

    def test_an_upload_that_stops_is_cut(self, gateway: RunningGateway) -> None:
        with connection(gateway.url) as wire:
            wire.sendall(post_head(50_000_000) + file_begins() + MP4 + bytes(2_000_000))
            assert status_of(wire) == 408


class TestSlowness:
    @pytest.fixture
    def gateway(self, start_gateway: StartGateway) -> RunningGateway:
        return start_gateway(upload_timeout_s=0.5)

    def test_an_upload_that_trickles_on_and_on_is_cut(self, gateway: RunningGateway) -> None:
        with connection(gateway.url) as wire:
            wire.sendall(post_head(50_000_000) + file_begins() + MP4)

            def trickled_until_answered() -> bool:
                wire.sendall(b"x")
                return bool(select.select([wire], [], [], 0)[0])

            eventually(trickled_until_answered)
            assert status_of(wire) == 408


def test_a_disk_that_fails_during_an_upload_is_told_without_its_words(
    gateway: RunningGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gateway.parts.blobs, "create", _broken_disk)
    answer = gateway.post(MP4)
    assert (answer.status_code, answer.json()["code"]) == (503, "service.storage_unavailable")
    assert answer.json()["detail"] == "The video could not be stored; try again shortly."


def _broken_disk(*_: object) -> None:
    raise OSError("I/O error at /secret")


class TestFullDisk:
    @pytest.fixture
    def gateway(self, start_gateway: StartGateway, tmp_path: Path) -> RunningGateway:
        gateway = start_gateway(min_free_bytes=1)
        free = iter(
            [2**40, 2**40, 0]
        )  # the check before the upload, its first block, and then the disk is full
        gateway.parts.blobs.free_bytes = lambda: next(free, 0)  # type: ignore[method-assign]
        return gateway

    def test_a_disk_that_fills_up_meanwhile_is_told(self, gateway: RunningGateway) -> None:
        answer = gateway.post(MP4 + bytes(5_000_000))
        assert (answer.status_code, answer.json()["code"]) == (507, "service.storage_full")


class TestRedisAway:
    @pytest.fixture
    def valkey(self, short_path: Path) -> object:
        from visum.valkey import EmbeddedValkey

        server = EmbeddedValkey(short_path / "valkey")
        process = server.start()
        yield server, process
        process.kill()
        process.wait(timeout=10)

    @pytest.fixture
    def redis_url(self, valkey: tuple[object, object]) -> str:
        return valkey[0].url  # type: ignore[attr-defined]

    @pytest.fixture(autouse=True)
    def _nothing_stays(self) -> None:
        """Instead of the file's: Redis can't be asked here."""

    def test_the_client_is_told_to_come_back(
        self, gateway: RunningGateway, valkey: tuple[object, subprocess.Popen[bytes]]
    ) -> None:
        valkey[1].kill()
        valkey[1].wait(timeout=10)
        for answer in (gateway.post(MP4), gateway.http.get("/summaries"), gateway.http.get("/domains")):
            assert (answer.status_code, answer.json()["code"]) == (503, "service.queue_unavailable")
            assert int(answer.headers["Retry-After"]) >= 1
        assert gateway.files() == []

    def test_no_job_is_half_made_when_it_goes_during_the_upload(
        self, gateway: RunningGateway, valkey: tuple[object, subprocess.Popen[bytes]]
    ) -> None:
        body = file_begins() + MP4 + bytes(3_000_000) + FORM_ENDS
        with connection(gateway.url) as wire:
            wire.sendall(post_head(len(body)) + body[:-10])
            eventually(lambda: len(gateway.files()) == 1)
            valkey[1].kill()
            valkey[1].wait(timeout=10)
            wire.sendall(body[-10:])
            assert status_of(wire) == 503
        assert gateway.files() == []

    def test_work_goes_on_when_it_comes_back(
        self, gateway: RunningGateway, valkey: tuple[object, subprocess.Popen[bytes]]
    ) -> None:
        server, process = valkey
        assert gateway.post(MP4).status_code == 202
        process.terminate()
        process.wait(timeout=10)
        again = server.start()  # type: ignore[attr-defined]
        try:
            assert gateway.post(MP4).status_code == 202
            with Redis.from_url(server.url) as redis:  # type: ignore[attr-defined]
                assert redis.llen(gateway.parts.queue.key) == 2
        finally:
            again.terminate()
            again.wait(timeout=10)


@pytest.mark.parametrize(
    ("path", "allowed"),
    [("/summaries", "GET, POST"), (f"/summaries/{'0' * 26}", "DELETE, GET"), ("/healthz", "GET")],
)
def test_a_wrong_method_is_told_every_right_one(gateway: RunningGateway, path: str, allowed: str) -> None:
    answer = gateway.http.put(path)
    assert answer.status_code == 405
    assert answer.headers["Allow"] == allowed
