"""InternVL 3: InternViT over whole frames, pixel shuffle, Qwen2 behind (arXiv 2504.10479)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from milora.architectures.spec import Architecture, attention_of


def _frames(model_config: Any, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Frames are packed, ``pixel_values`` (F, C, H, W); their placeholders in each prompt tell whose they are."""
    placeholders = (inputs["input_ids"] == model_config.image_token_id).sum(1)  # (V,)
    return {"frames": placeholders // model_config.image_seq_length}


INTERNVL = Architecture(
    model_type="internvl",
    temporal=attention_of("model.language_model.layers"),
    spatial=(
        "model.vision_tower.embeddings.patch_embeddings.projection",
        "model.vision_tower.encoder.layer.*.mlp.fc1",
        "model.vision_tower.encoder.layer.*.mlp.fc2",
    ),
    rows=(
        ("model.language_model.*", "prompt"),
        ("model.vision_tower.*", "frames"),
        ("model.multi_modal_projector.*", "frames"),
    ),
    counts=_frames,
)
