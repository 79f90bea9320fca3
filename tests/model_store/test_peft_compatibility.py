"""A published adapter in the hands of plain `peft`: MiLoRA with every gate at 1/K and α as learned."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from milora import GroupConfig, MiloraConfig, from_peft, inject, to_peft
from model_store.adapters import load_adapter, write_adapter
from model_store.backbone import Backbone, load_backbone, weights_sha256
from model_store.manifest import AdapterDraft, BackboneRef, GroupManifest
from model_store.publish import publish
from model_store.registry import AdapterEntry, AdapterRegistry
from tests.model_store.uniform_gates import group_configs, milora_logits, noise_video, peft_logits

ATTENTION = "model.language_model.layers.*.self_attn.[qkvo]_proj"
TOWER = ("model.vision_model.embeddings.patch_embedding", "model.vision_model.encoder.layers.*.mlp.fc[12]")
CONFIG = MiloraConfig(
    temporal=GroupConfig((ATTENTION,), experts=3, rank=2, lora_alpha=4.0),
    spatial=GroupConfig(TOWER, experts=2, rank=3, lora_alpha=5.0),
)

# peft asks transformers by a name that transformers is about to drop.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")


@pytest.fixture
def backbone(backbone_folder: Path) -> Backbone:
    return load_backbone(backbone_folder, device="cpu", dtype=torch.float32)


@pytest.fixture
def entry(backbone: Backbone, registry: AdapterRegistry, root: Path, tmp_path: Path) -> AdapterEntry:
    """An adapter with random experts, exported by the method, staged, published."""
    handle = inject(backbone.model, CONFIG, seed=1)
    torch.manual_seed(2)
    with torch.no_grad():
        for kind in handle.trainable_parameters().values():
            for parameter in kind:
                parameter.copy_(torch.randn_like(parameter) * 0.3)
    state = handle.export_state()
    handle.remove()
    config, tensors, gates = to_peft(state, backbone.name)
    draft = AdapterDraft(
        domain="traffic",
        groups={
            name: GroupManifest(
                targets=list(group.targets),
                experts=group.experts,
                rank=group.rank,
                lora_alpha=group.lora_alpha,
                temperature=group.temperature,
            )
            for name, group in state.groups.items()
        },
        fusion_alpha=state.fusion_alpha,
        trainable_parameters=state.parameters(),
        trainable_share=0.1,
        backbone=BackboneRef(name=backbone.name, fingerprint=backbone.fingerprint),
    )
    staged = write_adapter(tmp_path / "staged", draft, config=config, tensors=tensors, gates=gates)
    return publish(registry, root, staged, check=load_adapter)


def test_plain_peft_gives_the_logits_of_uniform_gates(backbone: Backbone, entry: AdapterEntry) -> None:
    batch = noise_video(backbone)
    ours = milora_logits(backbone, entry, batch)
    with torch.inference_mode():
        frozen = backbone.model(**batch).logits
    assert (ours - frozen).abs().max() > 0.1  # the experts do something
    assert (ours - peft_logits(backbone, entry, batch)).abs().max() < 1e-4


def test_injecting_loading_and_removing_leave_the_backbone_bit_identical(
    backbone: Backbone, entry: AdapterEntry
) -> None:
    loaded = load_adapter(entry)
    handle = inject(backbone.model, CONFIG)
    handle.load_state(from_peft(loaded.config, loaded.tensors, loaded.gates, group_configs(loaded)))
    assert weights_sha256(backbone.model) == backbone.fingerprint
    handle.remove()
    assert weights_sha256(backbone.model) == backbone.fingerprint
