"""Models of VideoLLaMA3's architecture with random weights: the speed of sizes that are not shipped.

They answer nothing sensible. What a token costs does not depend on what the weights say.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn
from transformers import (
    AutoModelForImageTextToText,
    GenerationConfig,
    PreTrainedTokenizerBase,
    VideoLlama3Config,
)
from transformers.initialization import no_init_weights

from milora import AdapterState, MiloraConfig, inject
from model_store.backbone import Backbone

WEIGHT_STD = 0.02
EXPERT_STD = 0.02
SEED = 20_260


@dataclass(frozen=True)
class Shape:
    """The sizes of one model. Where `vocabulary` or `patch_size` is None the demo's own is taken."""

    name: str
    hidden: int
    intermediate: int
    layers: int
    heads: int
    key_value_heads: int
    vision_hidden: int
    vision_intermediate: int
    vision_layers: int
    vision_heads: int
    vocabulary: int | None = None
    patch_size: int | None = None
    tied: bool = True


SMALL = Shape("0.3 B", 1024, 2816, 24, 16, 4, 512, 2048, 8, 8)
"""About 0.3 billion parameters with the demo's tokenizer and patches, so that it reads the same prompts."""
TWO_B = Shape("2 B", 1536, 8960, 28, 12, 2, 1152, 4304, 27, 16, vocabulary=151_936, patch_size=14)
"""VideoLLaMA3-2B: Qwen2.5-1.5B and a SigLIP tower."""
SEVEN_B = Shape(
    "7 B", 3584, 18_944, 28, 28, 4, 1152, 4304, 27, 16, vocabulary=152_064, patch_size=14, tied=False
)
"""VideoLLaMA3-7B: Qwen2.5-7B and the same tower."""


def random_backbone(
    like: Backbone, shape: Shape, dtype: torch.dtype, *, device: str = "cpu", seed: int = SEED
) -> Backbone:
    """A model of this shape with `like`'s processor and manifest; weights N(0, 0.02), the same for every dtype.

    The embedding of every token without letters is zero: it is then never the likeliest, and no answer is empty.
    """
    config = model_config(like.model.config, shape)
    with torch.device(device), no_init_weights():
        model = AutoModelForImageTextToText.from_config(config, dtype=dtype, attn_implementation="sdpa")
    model.tie_weights()
    generator = torch.Generator(device).manual_seed(seed)
    with torch.no_grad():
        for module in model.modules():
            _fill(module, generator)
        vocabulary = model.get_input_embeddings().weight.shape[0]
        blank = torch.tensor(blank_tokens(like.processor.tokenizer, vocabulary), device=device)
        for embedding in (model.get_input_embeddings(), model.get_output_embeddings()):
            embedding.weight[blank] = 0.0
    model.generation_config = GenerationConfig(**like.model.generation_config.to_dict())
    return replace(
        like,
        name=f"random {shape.name}",
        path=Path(),
        model=model.eval().requires_grad_(False),
        manifest=like.manifest.model_copy(update={"name": f"random {shape.name}", "fingerprint": None}),
        fingerprint="0" * 64,
        prototype=None,
    )


def model_config(like: VideoLlama3Config, shape: Shape) -> VideoLlama3Config:
    """The demo's config with other sizes."""
    text, vision = like.text_config.to_dict(), like.vision_config.to_dict()
    text |= {
        "hidden_size": shape.hidden,
        "intermediate_size": shape.intermediate,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.key_value_heads,
        "layer_types": ["full_attention"] * shape.layers,
        "vocab_size": shape.vocabulary or text["vocab_size"],
        "tie_word_embeddings": shape.tied,
    }
    vision |= {
        "hidden_size": shape.vision_hidden,
        "intermediate_size": shape.vision_intermediate,
        "num_hidden_layers": shape.vision_layers,
        "num_attention_heads": shape.vision_heads,
        "patch_size": shape.patch_size or vision["patch_size"],
    }
    return VideoLlama3Config(
        text_config=text,
        vision_config=vision,
        image_token_id=like.image_token_id,
        video_token_id=like.video_token_id,
        tie_word_embeddings=shape.tied,
    )


def random_adapter(backbone: Backbone, config: MiloraConfig, seed: int) -> AdapterState:
    """An adapter of which every tensor is random, experts and gates."""
    handle = inject(backbone.model, config, seed=seed)
    try:
        generator = torch.Generator(backbone.device).manual_seed(seed)
        with torch.no_grad():
            for layer in handle.layers:
                layer.B.normal_(0.0, EXPERT_STD, generator=generator)
                layer.G.normal_(0.0, EXPERT_STD, generator=generator)
        return handle.export_state()
    finally:
        handle.remove()


def blank_tokens(tokenizer: PreTrainedTokenizerBase, vocabulary: int) -> list[int]:
    """Ids of the special tokens, of those without letters, and of those past the tokenizer's own."""
    words = tokenizer.batch_decode([[token] for token in range(len(tokenizer))], skip_special_tokens=True)
    silent = [token for token, word in enumerate(words) if not any(letter.isalnum() for letter in word)]
    return [*silent, *range(len(words), vocabulary)]


def _fill(module: nn.Module, generator: torch.Generator) -> None:
    """Norms stay the identity; everything else is drawn. Biases of the norms are zero."""
    norm = "norm" in type(module).__name__.lower()
    for name, parameter in module.named_parameters(recurse=False):
        if norm:
            parameter.fill_(1.0 if name == "weight" else 0.0)
        else:
            parameter.normal_(0.0, WEIGHT_STD, generator=generator)
