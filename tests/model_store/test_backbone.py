from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from model_store.backbone import load_backbone, weights_sha256
from model_store.checkpoint import checkpoint_fingerprint
from model_store.errors import BackboneRefused
from model_store.manifest import BACKBONE_FILE, BackboneManifest, manifest_bytes
from tests.tiny_backbone import tiny_model, write_tiny_backbone

PATCH = "model.vision_model.embeddings.patch_embedding.weight"


@pytest.fixture
def copy(backbone_folder: Path, tmp_path: Path) -> Path:
    """A backbone of this test's own, to be damaged."""
    return Path(shutil.copytree(backbone_folder, tmp_path / "copy"))


def rewrite(folder: Path, **changes: torch.Tensor | None) -> None:
    state = load_file(folder / "model.safetensors")
    for name, tensor in changes.items():
        state.pop(name, None)
        if tensor is not None:
            state[name] = tensor
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})


def test_a_loaded_backbone_is_frozen_and_in_eval_mode(backbone_folder: Path) -> None:
    backbone = load_backbone(backbone_folder)
    assert not backbone.model.training
    assert not any(parameter.requires_grad for parameter in backbone.model.parameters())


def test_on_the_cpu_a_bf16_checkpoint_is_upcast_to_fp32(tmp_path: Path) -> None:
    folder = write_tiny_backbone(tmp_path / "half", dtype=torch.bfloat16)
    backbone = load_backbone(folder, device="cpu")
    expected = tiny_model().to(torch.bfloat16).float().state_dict()
    assert backbone.dtype == torch.float32
    assert all(torch.equal(tensor, expected[name]) for name, tensor in backbone.model.state_dict().items())


def test_attention_runs_through_sdpa(backbone_folder: Path) -> None:
    assert load_backbone(backbone_folder).model.config._attn_implementation == "sdpa"


def test_the_fingerprint_is_that_of_the_checkpoint(backbone_folder: Path, fingerprint: str) -> None:
    assert load_backbone(backbone_folder).fingerprint == fingerprint


def test_the_live_weights_hash_to_the_fingerprint_while_the_dtype_is_the_stored_one(
    backbone_folder: Path, fingerprint: str
) -> None:
    backbone = load_backbone(backbone_folder, device="cpu", dtype=torch.float32)
    assert weights_sha256(backbone.model) == fingerprint


def test_the_live_hash_sees_a_single_changed_bit(backbone_folder: Path) -> None:
    model = load_backbone(backbone_folder).model
    before = weights_sha256(model)
    weight = model.model.projector.readout[0].weight.view(torch.int32)
    with torch.no_grad():
        weight[0, 0] ^= 1
    assert weights_sha256(model) != before


def test_untied_heads_are_part_of_the_live_hash(tmp_path: Path) -> None:
    folder = write_tiny_backbone(tmp_path / "untied", tied=False)
    backbone = load_backbone(folder, device="cpu", dtype=torch.float32)
    assert weights_sha256(backbone.model) == backbone.fingerprint == checkpoint_fingerprint(folder)


def test_module_shapes_name_every_layer_that_an_adapter_may_target(backbone_folder: Path) -> None:
    shapes = load_backbone(backbone_folder).module_shapes
    assert shapes["model.vision_model.embeddings.patch_embedding"] == (32, 3, 4, 4)
    assert shapes["model.language_model.layers.1.self_attn.k_proj"] == (16, 32)


def test_the_manifest_says_how_frames_are_cut_and_what_is_asked(backbone_folder: Path) -> None:
    manifest = load_backbone(backbone_folder).manifest
    assert (manifest.name, manifest.frame_pixels, manifest.max_frames) == ("tiny", 32 * 32, 8)


def test_a_stock_checkpoint_without_a_manifest_gets_the_defaults(tmp_path: Path) -> None:
    backbone = load_backbone(write_tiny_backbone(tmp_path / "stock", manifest=False))
    assert backbone.manifest == BackboneManifest(name="stock")
    assert (backbone.manifest.min_frames, backbone.manifest.max_frames, backbone.manifest.fps) == (
        4,
        128,
        1.0,
    )


def test_shards_load_as_one_model(tmp_path: Path, fingerprint: str) -> None:
    folder = write_tiny_backbone(tmp_path / "shards", max_shard_size="40KB")
    assert not (folder / "model.safetensors").exists()
    assert load_backbone(folder).fingerprint == fingerprint


def test_a_missing_tensor_refuses_the_backbone_by_name(copy: Path) -> None:
    rewrite(copy, **{PATCH: None})
    with pytest.raises(
        BackboneRefused, match=r"copy is refused: missing tensors \(1\): .*patch_embedding.weight"
    ):
        load_backbone(copy)


def test_an_unknown_tensor_refuses_the_backbone_by_name(copy: Path) -> None:
    rewrite(copy, **{"model.extra.weight": torch.zeros(1)})
    with pytest.raises(BackboneRefused, match=r"unexpected tensors \(1\): model.extra.weight"):
        load_backbone(copy)


def test_a_misshapen_tensor_refuses_the_backbone(copy: Path) -> None:
    rewrite(copy, **{PATCH: torch.zeros(5)})
    with pytest.raises(BackboneRefused, match="copy is refused"):
        load_backbone(copy)


@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_refuse_the_backbone(copy: Path, poison: float) -> None:
    rewrite(copy, **{PATCH: torch.full((32, 3, 4, 4), poison)})
    with pytest.raises(BackboneRefused, match=r"patch_embedding.weight holds NaN or infinity"):
        load_backbone(copy)


def test_a_fingerprint_in_the_manifest_is_checked(copy: Path) -> None:
    manifest = BackboneManifest(name="tiny", fingerprint="0" * 64)
    (copy / BACKBONE_FILE).write_bytes(manifest_bytes(manifest))
    with pytest.raises(BackboneRefused, match="another fingerprint than its weights have"):
        load_backbone(copy)


def test_a_malformed_manifest_refuses_the_backbone(copy: Path) -> None:
    (copy / BACKBONE_FILE).write_text(json.dumps({"name": "tiny", "max_frames": 2, "min_frames": 4}))
    with pytest.raises(BackboneRefused, match=r"visum.json: .*min_frames 4 is above max_frames 2"):
        load_backbone(copy)


def test_a_folder_without_a_processor_is_refused(copy: Path) -> None:
    for name in ("processor_config.json", "tokenizer.json", "tokenizer_config.json"):
        (copy / name).unlink()
    with pytest.raises(BackboneRefused, match="its processor cannot be loaded"):
        load_backbone(copy)


def test_the_general_prototype_is_read_where_it_is_there(copy: Path) -> None:
    save_file({"mean": torch.zeros(32), "covariance": torch.eye(32)}, copy / "router.safetensors")
    prototype = load_backbone(copy).prototype
    assert prototype is not None
    assert torch.equal(prototype["covariance"], torch.eye(32))


def test_a_prototype_without_spread_refuses_the_backbone(copy: Path) -> None:
    save_file({"mean": torch.zeros(32), "covariance": torch.zeros(32, 32)}, copy / "router.safetensors")
    with pytest.raises(BackboneRefused, match="covariance is not positive definite"):
        load_backbone(copy)
