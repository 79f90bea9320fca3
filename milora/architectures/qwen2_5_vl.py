"""Qwen2.5-VL: patches of two frames each, packed, attention in windows (arXiv 2502.13923)."""

from __future__ import annotations

from milora.architectures.spec import Architecture, attention_of, patches_by_grid

QWEN2_5_VL = Architecture(
    model_type="qwen2_5_vl",
    temporal=attention_of("model.language_model.layers"),
    # The tower looks at pairs of neighbouring frames and no further, its attention at one pair.
    spatial=(
        "model.visual.patch_embed.proj",
        *(f"model.visual.blocks.*.mlp.{projection}_proj" for projection in ("gate", "up", "down")),
    ),
    # Reordered into windows on the way, but within each video.
    rows=(
        ("model.language_model.*", "prompt"),
        ("model.visual.patch_embed.*", "patches"),
        ("model.visual.blocks.*", "patches"),
    ),
    counts=patches_by_grid,
)
