"""A random model of some ten thousand parameters of every architecture, and batches of random videos for it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    InternVLConfig,
    InternVLForConditionalGeneration,
    LlavaOnevisionConfig,
    LlavaOnevisionForConditionalGeneration,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    SmolVLMConfig,
    SmolVLMForConditionalGeneration,
)

from milora.architectures.modeling_video_llama import VideoLlamaConfig, VideoLlamaForConditionalGeneration
from milora.architectures.modeling_videollama2 import VideoLlama2Config, VideoLlama2ForConditionalGeneration
from tests.tiny_backbone import tiny_model

VIDEO_TOKEN, IMAGE_TOKEN, VISION_START, VISION_END = 60, 61, 62, 63
WORDS = 50  # the ids of ordinary words end here, those below 3 are special
TEXT = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
VISION = {
    "hidden_size": 24,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 16,
    "patch_size": 4,
}
QFORMER = {
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
    "hidden_size": 24,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
}


@dataclass(frozen=True)
class Video:
    """One request: ``frames`` random frames and ``words`` random words after them."""

    frames: int
    words: int
    seed: int

    def drawn(self, *shape: int) -> Tensor:
        """Random numbers of this video's own, the same at every call."""
        return torch.randn(*shape, generator=torch.Generator().manual_seed(self.seed))

    def prompt(self) -> Tensor:
        generator = torch.Generator().manual_seed(self.seed + 1000)
        return torch.randint(3, WORDS, (self.words,), generator=generator)


@dataclass(frozen=True)
class Tiny:
    """How a model of one architecture is built, and what its processor would make of videos.

    ``tokens`` are the placeholders of one video, ``pixels`` the rest of the forward's inputs for several.
    ``ragged`` models take videos of different lengths in one batch.
    """

    model_type: str
    build: Callable[[], nn.Module]
    tokens: Callable[[Video], Sequence[int]]
    pixels: Callable[[Sequence[Video]], dict[str, Tensor]]
    ragged: bool

    def model(self, seed: int = 0) -> Any:
        """Random fp32 weights in eval mode, larger than the default ones so that what a frame shows reaches the logits.

        Vectors lie around one: most are the weights of norms.
        """
        torch.manual_seed(seed)
        model = self.build()
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                around = 1.0 if parameter.dim() == 1 and name.endswith("weight") else 0.0
                parameter.copy_(around + torch.randn_like(parameter) * 0.25)
        return model.eval().requires_grad_(True)

    def videos(self, count: int) -> list[Video]:
        """Different videos, of different lengths where the architecture can have them in one batch."""
        frames = [4, 2, 6, 2] if self.ragged else [4, 4, 4, 4]
        return [Video(frames[i], 3 + 2 * i, seed=i + 1) for i in range(count)]

    def inputs(self, videos: Sequence[Video], answer: int = 0) -> dict[str, Tensor]:
        """Left-padded prompts, each followed by an answer of so many random tokens."""
        prompts = [torch.cat([torch.tensor(self.tokens(video)), video.prompt()]) for video in videos]
        longest = max(len(prompt) for prompt in prompts)
        ids = torch.zeros(len(videos), longest + answer, dtype=torch.long)
        mask = torch.zeros_like(ids)
        for row, (video, prompt) in enumerate(zip(videos, prompts, strict=True)):
            generator = torch.Generator().manual_seed(video.seed + 2000)
            ids[row, longest - len(prompt) : longest] = prompt
            ids[row, longest:] = torch.randint(3, WORDS, (answer,), generator=generator)
            mask[row, longest - len(prompt) :] = 1
        inputs = {"input_ids": ids, "attention_mask": mask, **self.pixels(videos)}
        if self.model_type == "qwen2_5_vl":
            inputs["mm_token_type_ids"] = (ids == VIDEO_TOKEN).long() * 2
        return inputs


def _stacked(videos: Sequence[Video]) -> dict[str, Tensor]:
    """(V, T, 3, 16, 16)."""
    return {"pixel_values_videos": torch.stack([video.drawn(video.frames, 3, 16, 16) for video in videos])}


def _padded(videos: Sequence[Video]) -> dict[str, Tensor]:
    """(V, F, 3, 16, 16), shorter videos with black frames at their end."""
    pixels = torch.zeros(len(videos), max(video.frames for video in videos), 3, 16, 16)
    for row, video in enumerate(videos):
        pixels[row, : video.frames] = video.drawn(video.frames, 3, 16, 16)
    return {"pixel_values": pixels}


def _packed(videos: Sequence[Video]) -> dict[str, Tensor]:
    """(ΣF, 3, 16, 16)."""
    return {"pixel_values": torch.cat([video.drawn(video.frames, 3, 16, 16) for video in videos])}


def _patches(videos: Sequence[Video], frames_a_patch: int) -> dict[str, Tensor]:
    """(N, 3·t·4·4) patches of 4 pixels, 4×4 of them a frame or pair of frames."""
    grid = torch.tensor([[video.frames // frames_a_patch, 4, 4] for video in videos])
    width = 3 * frames_a_patch * 4 * 4
    pixels = [video.drawn(int(own.prod()), width) for video, own in zip(videos, grid, strict=True)]
    return {"pixel_values_videos": torch.cat(pixels), "video_grid_thw": grid}


def _video_llama_3(videos: Sequence[Video]) -> dict[str, Tensor]:
    return {**_patches(videos, 1), "video_merge_sizes": torch.full((len(videos),), 2)}


def _qwen2_5_vl() -> nn.Module:
    rope = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [1, 1, 2]}
    vision = {
        "depth": 2,
        "hidden_size": 24,
        "intermediate_size": 32,
        "num_heads": 2,
        "patch_size": 4,
        "window_size": 8,  # one merged patch: the first layer really reorders
        "out_hidden_size": 32,
        "fullatt_block_indexes": [1],
    }
    config = Qwen2_5_VLConfig(
        text_config={**TEXT, "rope_parameters": rope},
        vision_config=vision,
        image_token_id=IMAGE_TOKEN,
        video_token_id=VIDEO_TOKEN,
        vision_start_token_id=VISION_START,
        vision_end_token_id=VISION_END,
    )
    return Qwen2_5_VLForConditionalGeneration(config)


def _smolvlm() -> nn.Module:
    text = {"model_type": "llama", **TEXT}
    config = SmolVLMConfig(text_config=text, vision_config=VISION, scale_factor=2, image_token_id=VIDEO_TOKEN)
    return SmolVLMForConditionalGeneration(config)


def _llava_onevision() -> nn.Module:
    config = LlavaOnevisionConfig(
        text_config={"model_type": "qwen2", **TEXT},
        vision_config={"model_type": "siglip_vision_model", "vision_use_head": False, **VISION},
        image_token_index=IMAGE_TOKEN,
        video_token_index=VIDEO_TOKEN,
    )
    return LlavaOnevisionForConditionalGeneration(config)


def _internvl() -> nn.Module:
    config = InternVLConfig(
        text_config={"model_type": "qwen2", **TEXT},
        vision_config={**VISION, "image_size": [16, 16], "patch_size": [4, 4]},
        image_seq_length=4,
        image_token_id=VIDEO_TOKEN,
    )
    return InternVLForConditionalGeneration(config)


def video_llama_config() -> VideoLlamaConfig:
    """Four queries a frame and six a video, so that shapes cannot be confused."""
    return VideoLlamaConfig(
        vision_config=VISION,
        qformer_config=QFORMER,
        video_qformer_config=QFORMER,
        text_config=TEXT,
        num_query_tokens=4,
        num_video_query_tokens=6,
        max_frames=8,
        video_token_id=VIDEO_TOKEN,
    )


def _videollama2() -> nn.Module:
    config = VideoLlama2Config(
        vision_config={**VISION, "num_hidden_layers": 3},
        text_config={"model_type": "mistral", **TEXT},
        connector_depth=2,
        video_token_id=VIDEO_TOKEN,
    )
    return VideoLlama2ForConditionalGeneration(config)


def _placeholders(count: Callable[[int], int]) -> Callable[[Video], list[int]]:
    """So many placeholders for the number of frames."""
    return lambda video: [VIDEO_TOKEN] * count(video.frames)


TINY = [
    Tiny(
        "video_llama_3",
        tiny_model,
        lambda video: [tiny_model().config.video_token_id] * (4 * video.frames),
        _video_llama_3,
        ragged=True,
    ),
    Tiny(
        "video_llama",
        lambda: VideoLlamaForConditionalGeneration(video_llama_config()),
        _placeholders(lambda frames: 6),
        _stacked,
        ragged=False,
    ),
    Tiny(
        "videollama2",
        _videollama2,
        _placeholders(lambda frames: (frames // 2 + 1) * 3 * 3),
        _stacked,
        ragged=False,
    ),
    Tiny("smolvlm", _smolvlm, _placeholders(lambda frames: 4 * frames), _padded, ragged=True),
    Tiny(
        "qwen2_5_vl",
        _qwen2_5_vl,
        lambda video: [VISION_START] + [VIDEO_TOKEN] * (4 * (video.frames // 2)) + [VISION_END],
        lambda videos: _patches(videos, 2),
        ragged=True,
    ),
    Tiny(
        "llava_onevision",
        _llava_onevision,
        _placeholders(lambda frames: 4 * frames + 1),
        _stacked,
        ragged=False,
    ),
    Tiny("internvl", _internvl, _placeholders(lambda frames: 4 * frames), _packed, ragged=True),
]
