"""SmolVLM2: SigLIP over whole frames, pixel shuffle, a small Llama behind (arXiv 2504.05299)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from milora.architectures.spec import Architecture, attention_of


def _frames(model_config: Any, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """``pixel_values`` (V, F, C, H, W) is padded with frames that are zero, which the model drops."""
    return {"frames": inputs["pixel_values"].flatten(2).any(-1).sum(1)}


SMOLVLM = Architecture(
    model_type="smolvlm",
    temporal=attention_of("model.text_model.layers"),
    spatial=(
        "model.vision_model.embeddings.patch_embedding",
        "model.vision_model.encoder.layers.*.mlp.fc1",
        "model.vision_model.encoder.layers.*.mlp.fc2",
    ),
    rows=(
        ("model.text_model.*", "prompt"),
        ("model.vision_model.*", "frames"),
        ("model.connector.*", "frames"),
    ),
    counts=_frames,
)
