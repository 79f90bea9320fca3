"""VideoLLaMA3: patches of all videos packed into one sequence, Qwen2 behind (arXiv 2501.13106)."""

from __future__ import annotations

from milora.architectures.spec import Architecture, attention_of, patches_by_grid
from milora.config import MiloraConfig

#: The attention of the language model: the only place where frames meet each other in VideoLLaMA3.
VIDEO_LLAMA_3_TEMPORAL: tuple[str, ...] = attention_of("model.language_model.layers")
#: What looks inside one frame: the patch embedding and the vision tower's MLPs.
VIDEO_LLAMA_3_SPATIAL: tuple[str, ...] = (
    "model.vision_model.embeddings.patch_embedding",
    "model.vision_model.encoder.layers.*.mlp.fc1",
    "model.vision_model.encoder.layers.*.mlp.fc2",
)

VIDEO_LLAMA_3 = Architecture(
    model_type="video_llama_3",
    temporal=VIDEO_LLAMA_3_TEMPORAL,
    spatial=VIDEO_LLAMA_3_SPATIAL,
    rows=(("model.language_model.*", "prompt"), ("model.vision_model.*", "patches")),
    counts=patches_by_grid,
)


def video_llama_3(
    experts: int = 4,
    rank: int = 4,
    lora_alpha: float = 16.0,
    *,
    dropout: float = 0.0,
    temperature: float = 1.0,
) -> MiloraConfig:
    """Both groups of a `VideoLlama3ForConditionalGeneration` with the same K, r and scale."""
    return VIDEO_LLAMA_3.config(experts, rank, lora_alpha, dropout=dropout, temperature=temperature)
