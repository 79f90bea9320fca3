"""Random adapters for the tiny backbone, published as training would publish them."""

from __future__ import annotations

from pathlib import Path

import torch

from milora import AdapterState, GroupConfig, MiloraConfig, inject, to_peft, video_llama_3
from model_store.adapters import write_adapter
from model_store.backbone import Backbone, load_backbone
from model_store.manifest import AdapterDraft, BackboneRef, GroupManifest
from model_store.publish import publish
from model_store.registry import AdapterEntry, AdapterRegistry

STRENGTH = 0.3
"""Standard deviation of B: strong enough that every adapter gives an answer of its own."""


def random_state(
    backbone: Backbone, seed: int, *, experts: int = 3, rank: int = 2, one_group: bool = False
) -> AdapterState:
    """An adapter whose every tensor is random, of both groups or of the temporal one alone."""
    config = video_llama_3(experts, rank, 8.0)
    handle = inject(backbone.model, MiloraConfig(config.temporal) if one_group else config, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    try:
        with torch.no_grad():
            for layer in handle.layers:
                layer.B.copy_(torch.randn(layer.B.shape, generator=generator) * STRENGTH)
                layer.G.copy_(torch.randn(layer.G.shape, generator=generator))
            handle.fusion.a.fill_(0.3)
        return handle.export_state()
    finally:
        handle.remove()


def publish_random(
    backbone: Backbone,
    store: Path,
    domain: str,
    seed: int,
    *,
    experts: int = 3,
    rank: int = 2,
    one_group: bool = False,
) -> AdapterEntry:
    """Publish a random adapter as the next version of a domain; its prototype is far from the others'."""
    state = random_state(backbone, seed, experts=experts, rank=rank, one_group=one_group)
    config, tensors, gates = to_peft(state, backbone.name)
    draft = AdapterDraft(
        domain=domain,
        groups={name: _group(group) for name, group in state.groups.items()},
        fusion_alpha=state.fusion_alpha,
        trainable_parameters=state.parameters(),
        trainable_share=0.05,
        backbone=BackboneRef(name=backbone.name, fingerprint=backbone.fingerprint),
    )
    width = backbone.model.config.vision_config.hidden_size
    prototype = {"mean": torch.full((width,), float(seed)), "covariance": torch.eye(width)}
    root = store / "adapters"
    staged = write_adapter(
        store / f"staged-{domain}-{seed}",
        draft,
        config=config,
        tensors=tensors,
        gates=gates,
        prototype=prototype,
    )
    return publish(AdapterRegistry([root]), root, staged)


def _group(config: GroupConfig) -> GroupManifest:
    return GroupManifest(
        targets=list(config.targets),
        experts=config.experts,
        rank=config.rank,
        lora_alpha=config.lora_alpha,
        temperature=config.temperature,
    )


def load(folder: Path) -> Backbone:
    """The tiny backbone of a folder, on the CPU."""
    return load_backbone(folder, device="cpu")
