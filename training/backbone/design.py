"""The architectures in which a backbone of demo size is trained, and all in which their trainings differ."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn
from transformers import PreTrainedTokenizerFast

from training.backbone.architecture import build_config, build_model, build_processor
from training.backbone.forward import FastForward, LanguageForward
from training.backbone.model_card import VIDEO_LLAMA_3_CARD, VIDEOLLAMA2_CARD, Card
from training.backbone.sampling import TOKENS_PER_FRAME
from training.backbone.tokenizer import prompt_text
from training.backbone.videollama2 import (
    FRAMES_A_TOKEN,
    VideoLlama2Forward,
    build_videollama2,
    video_positions,
    videollama2_prompt,
)


@dataclass(frozen=True)
class Design:
    """One architecture.

    ``build`` makes the model for a tokenizer and so many rows of embedding, ``processor`` what is saved beside its
    weights to read videos and texts. ``prompt`` writes a video of frames at these times and an instruction, of which
    the video takes ``video_positions`` of so many frames; a token tells of ``frames_a_token`` frames.
    """

    name: str
    model_type: str
    build: Callable[[PreTrainedTokenizerFast, int], nn.Module]
    processor: Callable[[PreTrainedTokenizerFast], Any]
    forward: type[LanguageForward]
    prompt: Callable[[Sequence[float], str], str]
    video_positions: Callable[[int], int]
    frames_a_token: int
    card: Card


def _build_video_llama_3(tokenizer: PreTrainedTokenizerFast, vocabulary: int) -> nn.Module:
    return build_model(build_config(tokenizer, vocabulary))


def _stamped_prompt(times_s: Sequence[float], instruction: str) -> str:
    return prompt_text(times_s, TOKENS_PER_FRAME, instruction)


def _stamped_positions(frames: int) -> int:
    return (TOKENS_PER_FRAME + 3) * frames


def _tokenizer_alone(tokenizer: PreTrainedTokenizerFast) -> PreTrainedTokenizerFast:
    return tokenizer


VIDEO_LLAMA_3 = Design(
    name="visum-demo",
    model_type="video_llama_3",
    build=_build_video_llama_3,
    processor=build_processor,
    forward=FastForward,
    prompt=_stamped_prompt,
    video_positions=_stamped_positions,
    frames_a_token=1,
    card=VIDEO_LLAMA_3_CARD,
)

VIDEOLLAMA2 = Design(
    name="visum-demo-videollama2",
    model_type="videollama2",
    build=build_videollama2,
    processor=_tokenizer_alone,
    forward=VideoLlama2Forward,
    prompt=videollama2_prompt,
    video_positions=video_positions,
    frames_a_token=FRAMES_A_TOKEN,
    card=VIDEOLLAMA2_CARD,
)

DESIGNS = {design.model_type: design for design in (VIDEO_LLAMA_3, VIDEOLLAMA2)}


def design_of(model: nn.Module) -> Design:
    """The design of a model, by the ``model_type`` of its config."""
    return DESIGNS[model.config.model_type]
