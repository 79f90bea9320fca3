"""What users send by mistake or on purpose, and a Redis that goes away: every answer says what is wrong."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest
from PIL import Image

from contract.ids import new_id
from tests.acceptance.clips import Video
from tests.acceptance.conftest import MAX_UPLOAD_BYTES
from tests.acceptance.system import System, stopped, wait_until
from tests.workers.videos import write_audio, write_without_frames

FTYP = b"\0\0\0\x20ftypisom\0\0\2\0isomiso2avc1mp41"
Make = Callable[[Path, Path], object]


def _bytes(raw: bytes) -> Make:
    return lambda path, good: path.write_bytes(raw)


def _image(path: Path, good: Path) -> None:
    Image.effect_noise((320, 240), 60).save(path, format="PNG" if "png" in path.name else "JPEG")


TOLD_AT_ONCE: dict[str, tuple[Make, str, str]] = {
    "empty.mp4": (_bytes(b""), "video.empty", "empty"),
    "notes.mp4": (_bytes(b"Monday: buy milk\n" * 500), "video.unsupported_container", "text"),
    "noise.mp4": (_bytes(random.Random(7).randbytes(50_000)), "video.unsupported_container", "video"),
    "list.m3u8": (
        _bytes(b"#EXTM3U\n#EXT-X-VERSION:3\n#EXTINF:9,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n"),
        "video.unsupported_container",
        "HLS playlist",
    ),
    "list.mp4": (
        _bytes(b"ffconcat version 1.0\nfile /etc/passwd\n"),
        "video.unsupported_container",
        "concat",
    ),
    "still.png.mp4": (_image, "video.unsupported_container", "PNG image"),
    "still.jpg.mp4": (_image, "video.unsupported_container", "JPEG image"),
}

TOLD_BY_THE_WORKER: dict[str, tuple[Make, str]] = {
    "truncated.mp4": (
        lambda path, good: path.write_bytes(good.read_bytes()[: good.stat().st_size // 2]),
        "video.undecodable",
    ),
    "garbage.mp4": (_bytes(FTYP + random.Random(8).randbytes(50_000)), "video.undecodable"),
    "sound.mp4": (lambda path, good: write_audio(path), "video.no_video_stream"),
    "zero-frames.mkv": (lambda path, good: write_without_frames(path), "video.no_frames"),
}


@pytest.mark.parametrize("name", TOLD_AT_ONCE)
def test_what_is_no_video_is_refused_at_once_and_nothing_of_it_is_kept(
    system: System, tmp_path: Path, video: Video, name: str
) -> None:
    make, code, words = TOLD_AT_ONCE[name]
    make(tmp_path / name, video.path)
    before = system.known_ids(), system.stored_videos()
    answer = system.post(tmp_path / name)
    assert (answer.status_code, answer.json()["code"]) == (415, code)
    assert words in answer.json()["detail"]
    assert (system.known_ids(), system.stored_videos()) == before


@pytest.mark.parametrize("name", TOLD_BY_THE_WORKER)
def test_a_video_that_cannot_be_decoded_fails_with_a_code_and_a_sentence(
    system: System, tmp_path: Path, video: Video, name: str
) -> None:
    make, code = TOLD_BY_THE_WORKER[name]
    make(tmp_path / name, video.path)
    record = system.ended(system.submit(tmp_path / name, domain=video.domain))
    assert (record["status"], record["result"]) == ("failed", None)
    assert record["error"]["code"] == code
    assert record["error"]["message"].endswith(".")
    assert record["attempts"] == 1


def test_a_video_over_the_cap_is_refused_while_it_is_sent_and_nothing_stays(
    system: System, tmp_path: Path, video: Video
) -> None:
    large = tmp_path / "large.mp4"
    large.write_bytes(video.path.read_bytes() + bytes(MAX_UPLOAD_BYTES))
    before = system.known_ids(), system.stored_videos()
    answer = system.post(large)
    assert (answer.status_code, answer.json()["code"]) == (413, "request.too_large")
    assert (system.known_ids(), system.stored_videos()) == before


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("domain", "opera", "there is no domain 'opera'; there are auto, general, cooking"),
        ("adapter_version", "99", "99"),
        ("max_new_tokens", "0", "must be from 1"),
        ("seed", "tuesday", "not a whole number"),
        ("colour", "red", "there is no such field"),
    ],
)
def test_a_field_that_cannot_be_is_named(
    system: System, video: Video, field: str, value: str, words: str
) -> None:
    before = system.known_ids(), system.stored_videos()
    answer = system.post(video.path, **{"domain": "cooking", field: value})
    assert (answer.status_code, answer.json()["code"]) == (422, "request.invalid_field")
    assert [found["field"] for found in answer.json()["errors"]] == [field]
    assert words in answer.json()["errors"][0]["message"]
    assert (system.known_ids(), system.stored_videos()) == before


@pytest.mark.parametrize("path", ["/summaries/{}", "/summaries/nonsense", "/domains/opera"])
def test_what_nobody_made_is_not_found(system: System, path: str) -> None:
    answer = system.http.get(path.format(new_id(datetime.now(UTC))))
    assert answer.status_code == 404
    assert answer.headers["Content-Type"] == "application/problem+json"


def test_while_redis_is_away_clients_are_told_to_come_back_and_no_job_is_half_made(
    system: System, video: Video
) -> None:
    before = system.known_ids(), system.stored_videos()
    with stopped(system.valkey()):
        answer = system.post(video.path, domain=video.domain)
        assert system.http.get("/healthz").status_code == 200
    assert (answer.status_code, answer.json()["code"]) == (503, "service.queue_unavailable")
    assert int(answer.headers["Retry-After"]) >= 1
    wait_until(lambda: system.http.get("/readyz").status_code == 200, "the service is ready again")
    assert (system.known_ids(), system.stored_videos()) == before
    assert system.summarize(video.path, domain=video.domain)["summary"]


def test_a_redis_that_is_killed_comes_back_with_every_summary_that_was_taken(
    system: System, video: Video
) -> None:
    taken = [system.submit(video.path, domain=video.domain) for _ in range(3)]
    killed = system.valkey()
    os.kill(killed, signal.SIGKILL)
    refused: list[httpx.Response] = []

    def is_taken() -> bool:
        answer = system.post(video.path, domain=video.domain)
        (taken.append(answer.json()["id"]) if answer.status_code == 202 else refused.append(answer))
        return answer.status_code == 202

    wait_until(is_taken, "the service takes videos again")
    assert {answer.status_code for answer in refused} <= {503}
    assert [bool(system.result(summary_id)["summary"]) for summary_id in taken] == [True] * 4
    assert system.valkey() != killed
