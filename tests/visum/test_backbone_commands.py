"""`visum backbones`, over tiny real checkpoints."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from minisign import KeyPair

from tests.tiny_backbone import write_tiny_backbone
from visum.cli import main


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("VISUM_MODEL_STORE", str(tmp_path))
    return write_tiny_backbone(tmp_path / "backbones" / "tiny")


def test_a_backbone_in_the_store_is_listed(tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["backbones", "list", "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)["backbones"]}
    assert rows["tiny"]["path"] == str(tiny)
    assert rows["tiny"]["bytes"] > 0
    assert not rows["tiny"]["shipped"]


def test_verify_prints_the_fingerprint(tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["backbones", "verify", "tiny", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["name"] == "tiny"
    assert len(found["fingerprint"]) == 64


def test_verify_refuses_a_backbone_whose_weights_were_changed(
    tiny: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["backbones", "verify", "tiny", "--json"]) == 0
    fingerprint = json.loads(capsys.readouterr().out)["fingerprint"]
    manifest = json.loads((tiny / "visum.json").read_text())
    (tiny / "visum.json").write_text(json.dumps({**manifest, "fingerprint": fingerprint}))
    assert main(["backbones", "verify", "tiny"]) == 0
    weights = tiny / "model.safetensors"
    raw = bytearray(weights.read_bytes())
    raw[-1] ^= 1
    weights.write_bytes(raw)
    capsys.readouterr()
    assert main(["backbones", "verify", "tiny"]) == 1
    assert capsys.readouterr().err.startswith("visum: backbone tiny is refused: its weights have fingerprint")


def test_importing_what_is_no_original_checkpoint_is_refused(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["backbones", "import", str(tiny), "--name", "again"]) == 1
    assert capsys.readouterr().err.startswith("visum: ")
    assert not (tmp_path / "backbones" / "again").exists()


def test_a_signed_backbone_verifies_until_a_file_is_changed(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    keys = KeyPair.generate()
    secret = tmp_path / "visum.key"
    secret.write_bytes(bytes(keys.secret_key) + b"\n")
    monkeypatch.setenv("VISUM_TRUSTED_KEYS", keys.public_key.to_base64().decode())
    monkeypatch.setenv("VISUM_SIGNING_PASSWORD", "")

    assert main(["backbones", "verify", "tiny"]) == 1
    assert "is not signed" in capsys.readouterr().err
    assert main(["backbones", "sign", str(tiny), "--key", str(secret)]) == 0
    assert main(["backbones", "verify", "tiny"]) == 0
    (tiny / "config.json").write_text((tiny / "config.json").read_text() + " ")
    assert main(["backbones", "verify", "tiny"]) == 1
    assert "config.json: its sha256 is not the signed manifest's" in capsys.readouterr().err
