"""A small adapter that fits the tiny backbone, as the parts that training would hand over."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from model_store.adapters import write_adapter
from model_store.manifest import AdapterDraft, BackboneRef, GroupManifest

TEMPORAL = [f"model.language_model.layers.{layer}.self_attn.q_proj" for layer in range(2)]
SPATIAL = ["model.vision_model.embeddings.patch_embedding", "model.vision_model.encoder.layers.0.mlp.fc1"]
SHAPES = {
    **dict.fromkeys(TEMPORAL, (32, 32)),
    SPATIAL[0]: (32, 3, 4, 4),
    SPATIAL[1]: (40, 32),
}
EXPERTS, RANK = 3, 2
FUSION_ALPHA = 0.6
SOME_FINGERPRINT = "ab" * 32


def draft(domain: str = "traffic", fingerprint: str = SOME_FINGERPRINT, **changes: Any) -> AdapterDraft:
    sizes = {"experts": EXPERTS, "rank": RANK, "lora_alpha": 4.0}
    facts: dict[str, Any] = {
        "domain": domain,
        "groups": {
            "temporal": GroupManifest(targets=TEMPORAL, **sizes),
            "spatial": GroupManifest(targets=SPATIAL, **sizes),
        },
        "fusion_alpha": FUSION_ALPHA,
        "trainable_parameters": 1234,
        "trainable_share": 0.05,
        "backbone": BackboneRef(name="tiny", fingerprint=fingerprint),
        "quality": {"rouge_l": 0.93},
    }
    return AdapterDraft(**{**facts, **changes})


def config() -> dict[str, Any]:
    return {
        "peft_type": "LORA",
        "bias": "none",
        "r": EXPERTS * RANK,
        "lora_alpha": 4.0,
        "target_modules": sorted(SHAPES),
    }


def tensors(seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    made: dict[str, torch.Tensor] = {}
    for name, (out, *inputs) in SHAPES.items():
        kernel = [1] * (len(inputs) - 1)
        down = torch.randn(EXPERTS * RANK, *inputs, generator=generator)
        up = torch.randn(out, EXPERTS * RANK, *kernel, generator=generator)
        made[f"base_model.model.{name}.lora_A.weight"] = down
        made[f"base_model.model.{name}.lora_B.weight"] = up
    return made


def gates(seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    made = {"a": torch.logit(torch.tensor(FUSION_ALPHA))}
    for name, (_, *inputs) in SHAPES.items():
        made[f"{name}.G"] = torch.randn(EXPERTS, torch.Size(inputs).numel(), generator=generator)
        made[f"{name}.b"] = torch.randn(EXPERTS, generator=generator)
    return made


def prototype() -> dict[str, torch.Tensor]:
    return {"mean": torch.zeros(32), "covariance": torch.eye(32)}


def stage(folder: Path, domain: str = "traffic", **changes: Any) -> Path:
    """Write a complete staged adapter; `changes` replace parts or facts of the draft."""
    parts = {"config": config(), "tensors": tensors(), "gates": gates(), "prototype": prototype()}
    given = {name: changes.pop(name) for name in list(changes) if name in parts}
    return write_adapter(folder, draft(domain, **changes), card="# traffic\n", **{**parts, **given})
