"""`visum keys`, and the client with a key."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.visum.running import clean_environment, free_port, run_visum, wait_for
from visum.cli import main
from visum.client import Client, Options
from visum.errors import ServiceError
from visum.valkey import EmbeddedValkey


@pytest.fixture(autouse=True)
def _our_redis(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VISUM_REDIS_URL", redis_url)


@pytest.fixture
def guarded(redis_url: str, tmp_path: Path) -> Iterator[str]:
    """A gateway process that asks for keys."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    process = subprocess.Popen(
        [sys.executable, "-m", "visum", "gateway"],
        env=clean_environment(
            VISUM_PORT=str(port),
            VISUM_REDIS_URL=redis_url,
            VISUM_DATA_DIR=str(tmp_path),
            VISUM_AUTH="required",
        ),
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_for(lambda: _answers(url), "the gateway")
        yield url
    finally:
        process.terminate()
        assert process.wait(timeout=30) == 0


def _answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/healthz").status_code == 200
    except httpx.TransportError:
        return False


def made(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, object]:
    assert main(["keys", "create", *arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_a_new_key_is_one_line_for_a_script_to_take(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["keys", "create", "--tenant", "acme"]) == 0
    printed = capsys.readouterr()
    assert re.fullmatch(r"vsm_[0-9a-f]{12}_[0-9a-f]{64}\n", printed.out)
    assert "not shown again" in printed.err


def test_a_key_is_listed_without_its_secret(capsys: pytest.CaptureFixture[str]) -> None:
    key = made(
        capsys, "--tenant", "acme", "--scope", "summaries", "--scope", "metrics", "--name", "lap\x1b[31mtop"
    )
    for form in ([], ["--json"]):
        assert main(["keys", "list", *form]) == 0
        shown = capsys.readouterr().out
        assert str(key["id"]) in shown
        assert "acme" in shown
        assert str(key["token"]).rsplit("_", 1)[1] not in shown
        assert "\x1b[31m" not in shown
        assert "digest" not in shown


def test_a_key_is_good_until_it_is_revoked(
    guarded: str, clips: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    key = made(capsys, "--tenant", "acme")
    with Client(guarded, str(key["token"])) as client:
        accepted = client.submit(clips[0], Options())
        assert client.record(accepted["id"])[0]["status"] == "queued"
        assert main(["keys", "revoke", str(key["id"])]) == 0

        def refused() -> bool:
            try:
                client.record(accepted["id"])
            except ServiceError as error:
                return error.status == 401
            return False

        wait_for(refused, "the key to be refused")


def test_the_client_without_a_key_is_told_how_to_get_one(guarded: str, clips: list[Path]) -> None:
    done = run_visum("summarize", clips[0], "--url", guarded)
    assert done.returncode == 1
    assert "[auth.required]" in done.stderr
    assert "VISUM_API_KEY" in done.stderr


def test_the_client_takes_its_key_from_the_environment_and_never_shows_it(
    guarded: str, clips: list[Path]
) -> None:
    token = f"vsm_{'1' * 12}_{'2' * 64}"
    done = run_visum("summarize", clips[0], "--url", guarded, VISUM_API_KEY=token)
    assert "[auth.invalid]" in done.stderr
    assert "2222" not in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["revoke", "nope"], "There is no key 'nope'. See: visum keys list"),
        (["create", "--tenant", "A B"], "'A B' is no tenant"),
        (["create"], "Missing option '--tenant'"),
        (["create", "--tenant", "a", "--scope", "root"], "'root' is not one of"),
    ],
)
def test_what_can_not_be_done_is_one_line(
    arguments: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["keys", *arguments]) in (1, 2)
    error = capsys.readouterr().err
    assert complaint in error
    assert error.count("\n") == 1


def test_the_keys_of_a_service_on_this_machine_are_found_by_its_folder(
    short_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("VISUM_REDIS_URL")
    process = EmbeddedValkey(short_path / "mine" / "valkey").start()
    try:
        assert main(["keys", "create", "--tenant", "acme", "--data-dir", str(short_path / "mine")]) == 0
        assert main(["keys", "list", "--data-dir", str(short_path / "mine")]) == 0
    finally:
        process.terminate()
        process.wait(timeout=20)
    assert "acme" in capsys.readouterr().out
