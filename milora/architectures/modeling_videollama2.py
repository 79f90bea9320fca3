"""VideoLLaMA2 (arXiv 2406.07476): CLIP frame by frame, the STC connector over all frames, Mistral or Qwen2 behind."""

from __future__ import annotations

from copy import deepcopy

from torch import Tensor
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    CLIPVisionConfig,
    CLIPVisionModel,
    PreTrainedConfig,
)
from transformers.configuration_utils import SubConfigSpec

from milora.architectures.stc_connector import STCConnector
from milora.architectures.video_language_model import VideoLanguageModel

#: Released name → ours, as `from_pretrained` takes it: ``key_mapping=RELEASED_NAMES``.
RELEASED_NAMES = {
    r"^model\.vision_tower\.vision_tower\.vision_model\.": "vision_tower.",
    r"^model\.mm_projector\.": "connector.",
    r"^model\.": "language_model.model.",
    r"^lm_head\.": "language_model.lm_head.",
}


class VideoLlama2Config(PreTrainedConfig):
    """``vision_select_layer`` counts from the tower's end, −2 being the layer before the last.

    ``connector_padding`` is 1 in VideoLLaMA2 and 0 in VideoLLaMA2.1.
    """

    model_type = "videollama2"
    sub_configs_defaults = {  # noqa: RUF012 - what the base class reads
        "vision_config": CLIPVisionConfig,
        "text_config": SubConfigSpec(config_class=AutoConfig, model_type="mistral"),
    }

    vision_config: dict | PreTrainedConfig | None = None
    text_config: dict | PreTrainedConfig | None = None
    vision_select_layer: int = -2
    connector_depth: int = 4
    connector_padding: int = 1
    video_token_id: int = 32000
    tie_word_embeddings: bool = False


class VideoLlama2ForConditionalGeneration(VideoLanguageModel):
    """The tower's layers behind the selected one are never read and are not built."""

    config_class = VideoLlama2Config

    def __init__(self, config: VideoLlama2Config) -> None:
        super().__init__(config)
        vision = deepcopy(config.vision_config)
        vision.num_hidden_layers += config.vision_select_layer + 1
        self.vision_tower = CLIPVisionModel._from_config(vision)
        self.connector = STCConnector(
            vision.hidden_size,
            config.text_config.hidden_size,
            depth=config.connector_depth,
            padding=config.connector_padding,
        )
        self.language_model = AutoModelForCausalLM.from_config(config.text_config)
        self.post_init()

    def video_tokens(self, pixel_values_videos: Tensor) -> Tensor:
        """What the language model sees of every video: (V, T, 3, H, W) → (V, T'·h'·w', H_text)."""
        videos, frames = pixel_values_videos.shape[:2]
        seen = self.vision_tower(pixel_values_videos.flatten(0, 1)).last_hidden_state  # (V·T, 1 + h·w, D)
        return self.connector(seen[:, 1:].unflatten(0, (videos, frames)))
