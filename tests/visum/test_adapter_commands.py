"""`visum adapters`, over a real store beside the shipped one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from minisign import KeyPair

from tests.model_store.adapter_parts import stage, tensors
from visum.cli import main

DOMAIN = "harbour"  # no shipped one: what is shipped stays as it is in these tests


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "store"
    monkeypatch.setenv("VISUM_MODEL_STORE", str(folder))
    return folder


@pytest.fixture
def staged(tmp_path: Path) -> Path:
    return stage(tmp_path / "staged", DOMAIN)


def answer(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> Any:
    assert main(["adapters", *arguments, "--json"]) == code
    return json.loads(capsys.readouterr().out)


def test_publishing_twice_gives_versions_one_and_two(
    store: Path, staged: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert answer(capsys, "publish", str(staged))["version"] == 1
    second = answer(capsys, "publish", str(staged))
    assert second["version"] == 2
    assert second["path"] == str(store / "adapters" / DOMAIN / "2")


def test_a_published_adapter_is_listed_and_shown(
    store: Path, staged: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    answer(capsys, "publish", str(staged))
    rows = [row for row in answer(capsys, "list")["adapters"] if row["domain"] == DOMAIN]
    assert [row["version"] for row in rows] == [1]
    assert rows[0]["groups"]["temporal"] == {"experts": 3, "rank": 2}

    assert main(["adapters", "show", DOMAIN]) == 0
    text = capsys.readouterr().out
    assert f"{DOMAIN} version 1" in text
    assert "K 3, rank 2" in text
    assert "rouge_l: 0.93" in text


def test_the_warnings_of_a_training_are_shown_and_its_recipe_is_left_to_the_json(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    training = {"steps": 30, "signatures": {"no_gain": "ROUGE-L is 0.1."}, "recipe": {"seed": 11}}
    answer(capsys, "publish", str(stage(tmp_path / "staged", DOMAIN, training=training)))
    assert main(["adapters", "show", DOMAIN]) == 0
    shown = capsys.readouterr().out
    assert "steps: 30" in shown
    assert "no_gain: ROUGE-L is 0.1." in shown
    assert "seed" not in shown
    assert answer(capsys, "show", DOMAIN)["training"]["recipe"] == {"seed": 11}


def test_a_rollback_publishes_the_version_before_the_newest_again(
    store: Path, staged: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    answer(capsys, "publish", str(staged))
    answer(capsys, "publish", str(stage(tmp_path / "other", DOMAIN, tensors=tensors(1))))
    assert answer(capsys, "rollback", DOMAIN)["version"] == 3
    first, second, third = (answer(capsys, "show", DOMAIN, version)["files"] for version in "123")
    assert third == first != second


def test_a_rollback_goes_to_the_version_that_is_named(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for seed in range(3):
        answer(capsys, "publish", str(stage(tmp_path / str(seed), DOMAIN, tensors=tensors(seed))))
    assert answer(capsys, "rollback", DOMAIN, "1")["version"] == 4
    assert answer(capsys, "show", DOMAIN)["files"] == answer(capsys, "show", DOMAIN, "1")["files"]


def test_a_first_version_cannot_be_rolled_back(
    store: Path, staged: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    answer(capsys, "publish", str(staged))
    assert main(["adapters", "rollback", DOMAIN]) == 1
    assert capsys.readouterr().err == f"visum: {DOMAIN} has no version before 1\n"


def test_a_folder_that_is_no_adapter_is_not_published(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "nothing").mkdir()
    assert main(["adapters", "publish", str(tmp_path / "nothing")]) == 1
    assert capsys.readouterr().err.startswith("visum: ")
    assert answer(capsys, "list")["adapters"] == [
        row for row in answer(capsys, "list")["adapters"] if row["domain"] != DOMAIN
    ]


def test_a_changed_byte_is_found_by_verify(
    store: Path, staged: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = Path(answer(capsys, "publish", str(staged))["path"])
    assert [row["domain"] for row in answer(capsys, "verify", DOMAIN)["sound"]] == [DOMAIN]

    weights = path / "adapter_model.safetensors"
    weights.chmod(0o644)
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x7f")
    found = answer(capsys, "verify", code=1)
    assert [(one["domain"], one["version"]) for one in found["refused"]] == [(DOMAIN, 1)]
    assert "adapter_model.safetensors" in found["refused"][0]["reason"]


def test_a_damaged_version_is_listed_as_refused_beside_the_sound_ones(
    store: Path, staged: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    answer(capsys, "publish", str(staged))
    second = Path(answer(capsys, "publish", str(staged))["path"])
    manifest = second / "manifest.json"
    manifest.chmod(0o644)
    manifest.write_text("{")
    listed = answer(capsys, "list")
    assert [row["version"] for row in listed["adapters"] if row["domain"] == DOMAIN] == [1]
    assert [(one["domain"], one["version"]) for one in listed["refused"]] == [(DOMAIN, 2)]


def test_with_trusted_keys_an_adapter_is_signed_then_published_then_verified(
    store: Path,
    staged: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    keys = KeyPair.generate()
    secret = tmp_path / "visum.key"
    secret.write_bytes(bytes(keys.secret_key) + b"\n")
    monkeypatch.setenv("VISUM_TRUSTED_KEYS", keys.public_key.to_base64().decode())
    monkeypatch.setenv("VISUM_SIGNING_PASSWORD", "")

    assert main(["adapters", "publish", str(staged)]) == 1
    assert "is not signed" in capsys.readouterr().err
    assert answer(capsys, "sign", str(staged), "--key", str(secret))["version"] == 1
    assert answer(capsys, "publish", str(staged))["version"] == 1
    assert len(answer(capsys, "verify", DOMAIN)["sound"]) == 1

    (store / "adapters" / DOMAIN / "1" / "manifest.json.minisig").unlink()
    answer(capsys, "verify", code=1)


def test_a_trusted_key_that_is_none_is_named(
    store: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("VISUM_TRUSTED_KEYS", "RWnonsense")
    assert main(["adapters", "list"]) == 2
    assert "VISUM_TRUSTED_KEYS cannot be read" in capsys.readouterr().err
