from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from model_store.adapters import load_adapter, read_prototype, tensor_bytes
from model_store.errors import AdapterRefused, DamagedFile, PublishRefused
from model_store.publish import publish
from model_store.registry import AdapterEntry, AdapterRegistry
from tests.model_store import adapter_parts as parts

QUERY = parts.TEMPORAL[0]
PATCH = parts.SPATIAL[0]
A = f"base_model.model.{QUERY}.lora_A.weight"


@pytest.fixture
def entry(registry: AdapterRegistry, root: Path, tmp_path: Path) -> AdapterEntry:
    return publish(registry, root, parts.stage(tmp_path / "staged"))


def published(registry: AdapterRegistry, root: Path, **files: bytes) -> AdapterEntry:
    """An adapter whose hashes are right and whose files are as given: training gone wrong, not tampering."""
    content = {
        "adapter_config.json": json.dumps(parts.config()).encode(),
        "adapter_model.safetensors": tensor_bytes(parts.tensors()),
        "gates.safetensors": tensor_bytes(parts.gates()),
        "router.safetensors": tensor_bytes(parts.prototype()),
    }
    return publish(registry, root, content | files, parts.draft())


def test_what_was_staged_is_what_is_loaded(entry: AdapterEntry) -> None:
    loaded = load_adapter(entry, backbone_fingerprint=parts.SOME_FINGERPRINT, module_shapes=parts.SHAPES)
    assert loaded.config == parts.config()
    for mine, original in (
        (loaded.tensors, parts.tensors()),
        (loaded.gates, parts.gates()),
        (loaded.prototype, parts.prototype()),
    ):
        assert mine is not None
        assert mine.keys() == original.keys()
        assert all(torch.equal(mine[name], original[name]) for name in original)


def test_a_loaded_adapter_is_known_by_domain_version_and_weights(entry: AdapterEntry) -> None:
    assert load_adapter(entry).key == ("traffic", 1, entry.manifest.files["adapter_model.safetensors"])


def test_bf16_experts_stay_bf16(registry: AdapterRegistry, root: Path) -> None:
    half = {name: tensor.bfloat16() for name, tensor in parts.tensors().items()}
    loaded = load_adapter(published(registry, root, **{"adapter_model.safetensors": tensor_bytes(half)}))
    assert {tensor.dtype for tensor in loaded.tensors.values()} == {torch.bfloat16}


def test_an_adapter_without_a_prototype_has_none(
    registry: AdapterRegistry, root: Path, tmp_path: Path
) -> None:
    staged = parts.stage(tmp_path / "staged", prototype=None)
    assert load_adapter(publish(registry, root, staged)).prototype is None


@pytest.mark.parametrize("name", ["adapter_config.json", "adapter_model.safetensors", "gates.safetensors"])
def test_one_flipped_byte_refuses_the_adapter(entry: AdapterEntry, name: str) -> None:
    path = entry.path / name
    path.chmod(0o644)
    raw = bytearray(path.read_bytes())
    raw[-2] ^= 1
    path.write_bytes(raw)
    with pytest.raises(
        AdapterRefused, match=f"traffic/1 is refused: {name}: its sha256 is not the manifest's"
    ):
        load_adapter(entry)


def test_a_truncated_file_refuses_the_adapter(entry: AdapterEntry) -> None:
    path = entry.path / "adapter_model.safetensors"
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(AdapterRefused, match=r"adapter_model\.safetensors: has \d+ bytes where its header"):
        load_adapter(entry)


def test_an_adapter_of_another_backbone_is_refused(entry: AdapterEntry) -> None:
    with pytest.raises(AdapterRefused, match="it was trained on backbone tiny"):
        load_adapter(entry, backbone_fingerprint="cd" * 32)


def with_change(file: str, change: dict[str, torch.Tensor | None]) -> dict[str, bytes]:
    tensors = {"adapter_model": parts.tensors, "gates": parts.gates, "router": parts.prototype}[file]()
    for name, tensor in change.items():
        tensors.pop(name, None)
        if tensor is not None:
            tensors[name] = tensor
    return {f"{file}.safetensors": tensor_bytes(tensors)}


@pytest.mark.parametrize(
    ("file", "change", "reason"),
    [
        ("adapter_model", {A: None}, f"lacks {A}"),
        (
            "adapter_model",
            {"base_model.model.x.lora_A.weight": torch.zeros(1)},
            "unknown base_model.model.x.lora",
        ),
        ("adapter_model", {A: torch.zeros(5, 32)}, "are not of rank 6"),
        ("adapter_model", {A: torch.zeros(6, 31)}, r"gate \(3, 32\) and bias \(3,\) are not \(3, 31\)"),
        ("adapter_model", {A: torch.full((6, 32), float("nan"))}, "lora_A.weight holds NaN or infinity"),
        ("adapter_model", {A: torch.zeros(6, 32, dtype=torch.int64)}, "is torch.int64, not a float"),
        ("gates", {f"{QUERY}.G": None}, "gates.safetensors: lacks"),
        ("gates", {"surprise": torch.zeros(1)}, "gates.safetensors: unknown surprise"),
        ("gates", {f"{QUERY}.b": torch.zeros(4)}, r"bias \(4,\) are not"),
        ("gates", {f"{PATCH}.G": torch.full((3, 48), float("inf"))}, "holds NaN or infinity"),
        ("gates", {"a": torch.zeros(2)}, "a is not a scalar"),
        ("gates", {"a": torch.zeros(())}, "fusion_alpha is 0.6000, gates.safetensors makes it 0.5000"),
        ("router", {"covariance": None}, "router.safetensors: lacks covariance"),
        ("router", {"covariance": torch.zeros(32, 32)}, "covariance is not positive definite"),
        ("router", {"mean": torch.zeros(31)}, "do not fit"),
        ("router", {"mean": torch.full((32,), float("nan"))}, "mean holds NaN"),
    ],
)
def test_tensors_that_do_not_fit_refuse_the_adapter_by_name(
    registry: AdapterRegistry, root: Path, file: str, change: dict[str, torch.Tensor | None], reason: str
) -> None:
    entry = published(registry, root, **with_change(file, change))
    with pytest.raises(AdapterRefused, match=f"adapter traffic/1 is refused: .*{reason}"):
        load_adapter(entry)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"peft_type": "IA3"}, "peft_type is 'IA3', not 'LORA'"),
        ({"use_dora": True}, "use_dora is not supported"),
        ({"bias": "all"}, "trained biases are not supported"),
        ({"target_modules": "all-linear"}, "target_modules are not the manifest's targets"),
        ({"target_modules": [QUERY]}, "target_modules are not the manifest's targets"),
        ({"r": 4}, r"the rank of .* is not 6 \(experts x rank\)"),
        ({"rank_pattern": {QUERY: 2}}, f"the rank of {QUERY} is not 6"),
    ],
)
def test_a_configuration_that_builds_other_layers_refuses_the_adapter(
    registry: AdapterRegistry, root: Path, change: dict[str, Any], reason: str
) -> None:
    raw = json.dumps(parts.config() | change).encode()
    with pytest.raises(AdapterRefused, match=f"adapter_config.json: {reason}"):
        load_adapter(published(registry, root, **{"adapter_config.json": raw}))


@pytest.mark.parametrize("raw", [b"", b"[]", b'{"r": NaN}', b"[" * 100_000])
def test_a_configuration_that_is_no_json_object_refuses_the_adapter(
    registry: AdapterRegistry, root: Path, raw: bytes
) -> None:
    with pytest.raises(AdapterRefused, match=r"adapter_config\.json: "):
        load_adapter(published(registry, root, **{"adapter_config.json": raw}))


@pytest.mark.parametrize("raw", [b"", b"\xff" * 64, b"\x80\x04\x95" + b"\0" * 64])
def test_weights_that_are_no_safetensors_refuse_the_adapter(
    registry: AdapterRegistry, root: Path, raw: bytes
) -> None:
    with pytest.raises(AdapterRefused, match=r"adapter_model\.safetensors: is not a safetensors file"):
        load_adapter(published(registry, root, **{"adapter_model.safetensors": raw}))


@pytest.mark.parametrize(
    ("shapes", "reason"),
    [
        (
            {name: shape for name, shape in parts.SHAPES.items() if name != QUERY},
            "the backbone has no such module",
        ),
        (parts.SHAPES | {QUERY: (32, 64)}, r"made for a weight of \(32, 32\), the backbone's is \(32, 64\)"),
        (parts.SHAPES | {PATCH: (32, 3, 14, 14)}, r"the backbone's is \(32, 3, 14, 14\)"),
    ],
)
def test_an_adapter_for_other_layers_than_the_backbones_is_refused(
    entry: AdapterEntry, shapes: dict[str, tuple[int, ...]], reason: str
) -> None:
    with pytest.raises(AdapterRefused, match=reason):
        load_adapter(entry, module_shapes=shapes)


def test_the_tiny_backbones_own_shapes_are_accepted(
    registry: AdapterRegistry, root: Path, tmp_path: Path, backbone_folder: Path
) -> None:
    from model_store.backbone import load_backbone

    backbone = load_backbone(backbone_folder)
    staged = parts.stage(tmp_path / "staged", backbone={"name": "tiny", "fingerprint": backbone.fingerprint})
    entry = publish(registry, root, staged)
    load_adapter(entry, backbone_fingerprint=backbone.fingerprint, module_shapes=backbone.module_shapes)


def test_parts_that_do_not_fit_are_not_staged(tmp_path: Path) -> None:
    with pytest.raises(PublishRefused, match=r"gates\.safetensors: lacks a"):
        parts.stage(tmp_path / "staged", gates={})
    assert not (tmp_path / "staged").exists()


def test_publishing_can_check_by_loading(registry: AdapterRegistry, root: Path) -> None:
    content = {
        "adapter_config.json": b"{}",
        "adapter_model.safetensors": tensor_bytes(parts.tensors()),
        "gates.safetensors": tensor_bytes(parts.gates()),
    }
    with pytest.raises(PublishRefused, match="peft_type is None"):
        publish(registry, root, content, parts.draft(), check=load_adapter)
    assert registry.domains() == []


def test_a_prototype_that_is_not_there_is_none(tmp_path: Path) -> None:
    assert read_prototype(tmp_path / "router.safetensors") is None


def test_a_prototype_with_other_keys_is_damaged(tmp_path: Path) -> None:
    path = tmp_path / "router.safetensors"
    path.write_bytes(tensor_bytes({"average": torch.zeros(3)}))
    with pytest.raises(DamagedFile, match="unknown average"):
        read_prototype(path)
