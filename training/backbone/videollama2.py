"""A backbone of VideoLLaMA2's shape and of the demo's size: CLIP, the STC connector, Mistral; 5.5 million parameters.

Where the demo backbone's frames meet in the language model's attention alone, here two neighbouring frames become one
set of tokens in a 3-D convolution before the language model. Frames are told apart by their order, not by time stamps.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import GenerationConfig, PreTrainedTokenizerFast

from milora.architectures.modeling_videollama2 import VideoLlama2Config, VideoLlama2ForConditionalGeneration
from training.backbone.architecture import ROPE
from training.backbone.dense_labels import block_order
from training.backbone.forward import LanguageForward
from training.backbone.sampling import (
    FRAME_HEIGHT,
    FRAME_WIDTH,
    MERGE,
    PATCH,
    PATCHES_PER_FRAME,
    TOKENS_PER_FRAME,
)
from training.backbone.tokenizer import END_OF_TEXT, TURN_END, TURN_START, VIDEO_PAD

FRAMES_A_TOKEN = 2  # the stride of the connector's 3-D convolution
SIDE = FRAME_WIDTH  # frames are square: rows of one colour below the picture
TOKENS_A_PAIR = (SIDE // PATCH // MERGE) ** 2  # 16, of which the last four see nothing but that colour


def build_videollama2(
    tokenizer: PreTrainedTokenizerFast, vocabulary: int
) -> VideoLlama2ForConditionalGeneration:
    """A randomly initialized model in fp32 with ``vocabulary`` rows of embedding; seed torch before the call."""
    special = {
        "eos_token_id": tokenizer.convert_tokens_to_ids(TURN_END),
        "pad_token_id": tokenizer.convert_tokens_to_ids(END_OF_TEXT),
    }
    vision = {
        "hidden_size": 128,
        "intermediate_size": 384,
        "num_hidden_layers": 5,  # the last one is never read and not built
        "num_attention_heads": 4,
        "patch_size": PATCH,
        "image_size": SIDE,
    }
    text = {
        "model_type": "mistral",
        "vocab_size": vocabulary,
        "hidden_size": 256,
        "intermediate_size": 704,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "max_position_embeddings": 2048,
        "sliding_window": None,
        "tie_word_embeddings": True,
        "rope_parameters": dict(ROPE),
        "bos_token_id": None,
        **special,
    }
    config = VideoLlama2Config(
        vision_config=vision,
        text_config=text,
        connector_depth=1,
        connector_padding=0,  # as in VideoLLaMA2.1: no token of padding alone
        video_token_id=tokenizer.convert_tokens_to_ids(VIDEO_PAD),
        tie_word_embeddings=True,
    )
    model = VideoLlama2ForConditionalGeneration(config)
    model.generation_config = GenerationConfig(**special, do_sample=False, max_new_tokens=160)
    return model


def video_positions(frames: int) -> int:
    """Text positions of a video of so many frames; a last frame without a neighbour is its own."""
    return TOKENS_A_PAIR * -(-frames // FRAMES_A_TOKEN)


def videollama2_prompt(times_s: Sequence[float], instruction: str) -> str:
    """The prompt for one video and one instruction."""
    video = VIDEO_PAD * video_positions(len(times_s))
    return f"{TURN_START}user\n{video}\n{instruction}{TURN_END}\n{TURN_START}assistant\n"


class VideoLlama2Forward(LanguageForward):
    """The pass over it: the tower's attention spelled out, the connector as it is; the frames are even in number."""

    @staticmethod
    def parts(model: nn.Module) -> tuple[nn.Module, nn.Module, nn.Module]:
        return model.vision_tower, model.connector, model.language_model.model

    @staticmethod
    def pictures(frames: Tensor) -> Tensor:
        """``(..., T, 48, 64, 3)`` to ``(..., T, 3, 64, 64)``, grey below."""
        return F.pad(frames.movedim(-1, -3), (0, 0, 0, SIDE - FRAME_HEIGHT))

    @staticmethod
    def rows(frames: Tensor) -> dict[str, Sequence[int]]:
        return {"frames": [frames.shape[1]] * len(frames)}

    def patch_features(self, pictures: Tensor) -> Tensor:
        """``(..., T, 3, 64, 64)`` to ``(F, 64, 128)`` features without the class token's."""
        x = self.vision.pre_layrnorm(self.vision.embeddings(pictures.flatten(0, -4)))
        for layer in self.vision.encoder.layers:
            x = self.vision_layer(layer, x)
        return x[:, 1:]

    def video(self, pictures: Tensor) -> Tensor:
        """``(B, T, 3, 64, 64)`` to ``(B, 16 · T / 2, 256)``."""
        return self.projector(self.patch_features(pictures).unflatten(0, pictures.shape[:2]))

    def cells(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        """The patches and tokens of the picture, which is the upper part of a frame."""
        features = self.patch_features(pictures)
        tokens = self.projector(features.unflatten(0, pictures.shape[:2]))
        pairs = tokens.view(-1, TOKENS_A_PAIR, tokens.shape[-1])  # (F / 2, 16, 256)
        order = torch.from_numpy(block_order())
        return features[:, :PATCHES_PER_FRAME][:, order], pairs[:, :TOKENS_PER_FRAME]
