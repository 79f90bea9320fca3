"""The original Video-LLaMA, its vision-language branch (arXiv 2306.02858; DAMO-NLP-SG/Video-LLaMA, 2023).

    frame   → EVA-CLIP ViT-g → Q-Former, 32 queries                        (BLIP-2's own, both frozen)
    frames  → + frame position → video Q-Former, 32 queries over all T·32 tokens → linear → LLaMA

Q-Formers and tower are the modules of `transformers`' BLIP-2, which differ from the released ones in names alone;
`original_video_llama` loads those. The audio branch is left out: summaries are of what is seen.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers import (
    Blip2QFormerConfig,
    Blip2QFormerModel,
    Blip2VisionConfig,
    Blip2VisionModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedConfig,
)

from milora.architectures.video_language_model import VideoLanguageModel

#: BLIP-2's norm behind the tower has torch's own epsilon; `transformers` gives it that of the tower's layers.
LN_VISION_EPS = 1e-5


class VideoLlamaConfig(PreTrainedConfig):
    """The defaults are the released model's: 39 layers of ViT-g, 12 and 2 of Q-Formers, LLaMA-7B."""

    model_type = "video_llama"
    sub_configs_defaults = {  # noqa: RUF012 - what the base class reads
        "vision_config": Blip2VisionConfig,
        "qformer_config": Blip2QFormerConfig,
        "video_qformer_config": Blip2QFormerConfig,
        "text_config": LlamaConfig,
    }

    vision_config: dict | PreTrainedConfig | None = None
    qformer_config: dict | PreTrainedConfig | None = None
    video_qformer_config: dict | PreTrainedConfig | None = None
    text_config: dict | PreTrainedConfig | None = None
    num_query_tokens: int = 32
    num_video_query_tokens: int = 32
    max_frames: int = 32
    video_token_id: int = 32000
    tie_word_embeddings: bool = False

    def __post_init__(self, **kwargs: object) -> None:
        if self.video_qformer_config is None:
            self.video_qformer_config = {"num_hidden_layers": 2}
        super().__post_init__(**kwargs)
        self.qformer_config.encoder_hidden_size = self.vision_config.hidden_size
        self.video_qformer_config.encoder_hidden_size = self.qformer_config.hidden_size
        self.video_qformer_config.cross_attention_frequency = 1  # in every layer, BLIP-2's in every other


class VideoLlamaForConditionalGeneration(VideoLanguageModel):
    """ViT-g and Q-Former frame by frame, the video Q-Former over all of them, LLaMA behind."""

    config_class = VideoLlamaConfig

    def __init__(self, config: VideoLlamaConfig) -> None:
        super().__init__(config)
        width, video_width = config.qformer_config.hidden_size, config.video_qformer_config.hidden_size
        self.vision_model = Blip2VisionModel._from_config(config.vision_config)
        self.vision_model.post_layernorm.eps = LN_VISION_EPS
        self.query_tokens = nn.Parameter(torch.zeros(1, config.num_query_tokens, width))
        self.qformer = Blip2QFormerModel._from_config(config.qformer_config)
        self.frame_position_embedding = nn.Embedding(config.max_frames, width)
        self.video_query_tokens = nn.Parameter(torch.zeros(1, config.num_video_query_tokens, video_width))
        self.video_qformer = Blip2QFormerModel._from_config(config.video_qformer_config)
        self.projection = nn.Linear(video_width, config.text_config.hidden_size)
        self.language_model = LlamaForCausalLM._from_config(config.text_config)
        self.post_init()

    def frame_tokens(self, frames: Tensor) -> Tensor:
        """What the Q-Former asks of every frame: (F, 3, H, W) → (F, 32, D)."""
        patches = self.vision_model(frames).last_hidden_state  # (F, 1 + n, Dv), after BLIP-2's ln_vision
        queries = self.query_tokens.expand(len(frames), -1, -1)
        return self.qformer(query_embeds=queries, encoder_hidden_states=patches).last_hidden_state

    def video_tokens(self, pixel_values_videos: Tensor) -> Tensor:
        """What LLaMA sees of every video: (V, T, 3, H, W) → (V, 32, H_llama)."""
        videos, frames = pixel_values_videos.shape[:2]
        tokens = self.frame_tokens(pixel_values_videos.flatten(0, 1))  # (V·T, 32, D)
        tokens = tokens.view(videos, frames, *tokens.shape[1:])  # (V, T, 32, D)
        positions = torch.arange(frames, device=tokens.device)
        tokens = tokens + self.frame_position_embedding(positions).unsqueeze(1)  # + (T, 1, D)
        queries = self.video_query_tokens.expand(videos, -1, -1)
        seen = self.video_qformer(
            query_embeds=queries, encoder_hidden_states=tokens.flatten(1, 2)
        )  # (V, T·32, D)
        return self.projection(seen.last_hidden_state)
