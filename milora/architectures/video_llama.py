"""The original Video-LLaMA: EVA-CLIP, two Q-Formers, LLaMA (arXiv 2306.02858); see `modeling_video_llama`."""

from __future__ import annotations

from milora.architectures.spec import Architecture, attention_of, frames_by_batch_row

VIDEO_LLAMA = Architecture(
    model_type="video_llama",
    # The video Q-Former is where frames meet first. What its cross-attention reads are all frames' tokens with
    # their positions; its first queries are the same for every video, no gate could tell videos apart by them.
    temporal=(
        "video_qformer.encoder.layer.*.crossattention.attention.key",
        "video_qformer.encoder.layer.*.crossattention.attention.value",
        "video_qformer.encoder.layer.*.crossattention.output.dense",
        *attention_of("language_model.model.layers"),
    ),
    spatial=(
        "vision_model.embeddings.patch_embedding",
        "vision_model.encoder.layers.*.mlp.fc1",
        "vision_model.encoder.layers.*.mlp.fc2",
    ),
    rows=(
        ("language_model.*", "prompt"),
        ("vision_model.*", "frames"),
        ("qformer.*", "frames"),
        ("video_qformer.*", "videos"),
        ("projection", "videos"),
    ),
    counts=frames_by_batch_row,
)
