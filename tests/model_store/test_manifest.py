from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from model_store.errors import DamagedFile
from model_store.manifest import (
    AdapterDraft,
    AdapterManifest,
    BackboneManifest,
    manifest_bytes,
    read_manifest,
)
from tests.model_store.adapter_parts import draft

HASH = "0" * 64
FILES = dict.fromkeys(("adapter_config.json", "adapter_model.safetensors", "gates.safetensors"), HASH)


def facts(**changes: Any) -> dict[str, Any]:
    return {**json.loads(draft().model_dump_json()), "version": 1, "files": FILES, **changes}


def read(tmp_path: Path, content: dict[str, Any] | str) -> AdapterManifest:
    path = tmp_path / "manifest.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return read_manifest(path, AdapterManifest)


def group(**changes: Any) -> dict[str, Any]:
    return {"temporal": {"targets": ["a.b"], "experts": 2, "rank": 2, "lora_alpha": 4.0, **changes}}


def test_a_manifest_survives_writing_and_reading(tmp_path: Path) -> None:
    manifest = AdapterManifest(**draft().model_dump(), version=3, files=FILES)
    path = tmp_path / "manifest.json"
    path.write_bytes(manifest_bytes(manifest))
    assert read_manifest(path, AdapterManifest) == manifest


def test_the_draft_of_a_manifest_is_what_training_said() -> None:
    manifest = AdapterManifest(**draft().model_dump(), version=3, files=FILES)
    assert manifest.draft() == draft()
    assert type(manifest.draft()) is AdapterDraft


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"schema_version": 2}, "schema_version: Input should be 1"),
        ({"surprise": 1}, "surprise: Extra inputs are not permitted"),
        ({"domain": "../etc"}, "domain: String should match pattern"),
        ({"domain": "Traffic"}, "domain: String should match pattern"),
        ({"domain": "general"}, "'general' is reserved"),
        ({"domain": "auto"}, "'auto' is reserved"),
        ({"version": 0}, "version: Input should be greater than or equal to 1"),
        ({"fusion_alpha": 1.0}, "fusion_alpha: Input should be less than 1"),
        ({"files": {**FILES, "../../etc/passwd": HASH}}, "is not a file of an adapter"),
        ({"files": {**FILES, "/etc/passwd": HASH}}, "is not a file of an adapter"),
        ({"files": {**FILES, "weights.bin": HASH}}, "is not a file of an adapter"),
        (
            {"files": {**FILES, "gates.safetensors": "beef"}},
            "files.gates.safetensors: String should match pattern",
        ),
        (
            {"files": {"gates.safetensors": HASH}},
            "files lacks adapter_config.json, adapter_model.safetensors",
        ),
        ({"groups": {}}, "groups: Dictionary should have at least 1 item"),
        ({"groups": {"audio": group()["temporal"]}}, "groups.audio"),
        ({"groups": group(experts=0)}, "groups.temporal.experts: Input should be greater"),
        ({"groups": group(targets=["a.b", "a.b"])}, "a target is named twice"),
        ({"groups": group(targets=["a.*"])}, "groups.temporal.targets.0: String should match pattern"),
        ({"groups": group() | {"spatial": group()["temporal"]}}, "a module is a target of both groups"),
        ({"groups": group(temperature=0)}, "groups.temporal.temperature: Input should be greater than 0"),
        ({"backbone": {"name": "x", "fingerprint": "short"}}, "backbone.fingerprint: String should match"),
    ],
)
def test_a_manifest_that_breaks_the_schema_names_the_field(
    tmp_path: Path, change: dict[str, Any], reason: str
) -> None:
    with pytest.raises(DamagedFile) as damaged:
        read(tmp_path, facts(**change))
    assert reason in str(damaged.value)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity"])
def test_numbers_that_are_none_are_refused_wherever_they_stand(tmp_path: Path, number: str) -> None:
    text = json.dumps(facts(quality={"rouge_l": 0.5})).replace("0.5", number)
    with pytest.raises(DamagedFile):
        read(tmp_path, text)


@pytest.mark.parametrize("text", ["", "{", "[]", "\x00", "[" * 100_000])
def test_what_is_not_a_manifest_is_a_damaged_file(tmp_path: Path, text: str) -> None:
    with pytest.raises(DamagedFile, match=r"manifest\.json: "):
        read(tmp_path, text)


def test_a_manifest_of_many_megabytes_is_not_taken_into_memory(tmp_path: Path) -> None:
    path = tmp_path / "manifest.json"
    with open(path, "wb") as stream:
        stream.truncate(2**40)  # a sparse file of a terabyte
    with pytest.raises(DamagedFile, match="is larger than"):
        read_manifest(path, AdapterManifest)


def test_a_linked_manifest_is_refused(tmp_path: Path) -> None:
    (tmp_path / "real.json").write_text(json.dumps(facts()))
    (tmp_path / "manifest.json").symlink_to(tmp_path / "real.json")
    with pytest.raises(DamagedFile, match="is a symbolic link"):
        read_manifest(tmp_path / "manifest.json", AdapterManifest)


def test_a_stock_backbone_has_the_documented_defaults() -> None:
    manifest = BackboneManifest(name="VideoLLaMA3-2B")
    assert manifest.prompt == "Summarize the video."
    assert (manifest.fps, manifest.min_frames, manifest.max_frames, manifest.frame_pixels) == (
        1.0,
        4,
        128,
        None,
    )
    assert manifest.domain == "general"
