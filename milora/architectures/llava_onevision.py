"""LLaVA-OneVision: SigLIP over whole frames, Qwen2 behind (arXiv 2408.03326)."""

from __future__ import annotations

from milora.architectures.spec import Architecture, attention_of, frames_by_batch_row

LLAVA_ONEVISION = Architecture(
    model_type="llava_onevision",
    temporal=attention_of("model.language_model.layers"),
    spatial=(
        "model.vision_tower.embeddings.patch_embedding",
        "model.vision_tower.encoder.layers.*.mlp.fc1",
        "model.vision_tower.encoder.layers.*.mlp.fc2",
    ),
    rows=(
        ("model.language_model.*", "prompt"),
        ("model.vision_tower.*", "frames"),
        ("model.multi_modal_projector.*", "frames"),
    ),
    counts=frames_by_batch_row,
)
