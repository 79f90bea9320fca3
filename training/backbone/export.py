"""The finished folder: what stock ``transformers`` loads, our manifest, the recognition mark and a model card."""

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import PreTrainedTokenizerFast, VideoLlama3ForConditionalGeneration

from model_store.checkpoint import checkpoint_fingerprint
from model_store.files import write_durably
from model_store.manifest import BACKBONE_FILE, ROUTER_FILE, BackboneManifest, manifest_bytes
from training.backbone.architecture import build_processor
from training.backbone.forward import FastForward
from training.backbone.model_card import NOTICE, model_card
from training.backbone.recipe import Recipe
from training.backbone.rendering import Sample
from training.backbone.sampling import FRAME_PIXELS, MAX_FRAMES, MIN_FRAMES
from training.recognition import recognition_mark

NAME = "visum-demo"

Facts = Mapping[str, float | int | str]


def export_backbone(
    model: VideoLlama3ForConditionalGeneration,
    tokenizer: PreTrainedTokenizerFast,
    recipe: Recipe,
    samples: list[Sample],
    training: Facts,
    quality: Facts,
    folder: Path,
) -> None:
    """Write ``folder``.

    Args:
        model: the trained model in bf16.
        samples: clips of the backbone's own domain whose features the router learns.
        training: how it was made (clips, minutes, machine) and
        quality: how good it is on held-out clips; told by the manifest and the model card.
    """
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    build_processor(tokenizer).save_pretrained(folder)
    save_file(general_mark(model, samples), folder / ROUTER_FILE)
    write_durably(folder / BACKBONE_FILE, manifest_bytes(describe(folder, recipe, training, quality)))
    (folder / "README.md").write_text(model_card(recipe, {**quality, **training}))


def general_mark(
    model: VideoLlama3ForConditionalGeneration, samples: list[Sample]
) -> dict[str, torch.Tensor]:
    """The recognition mark of the backbone's own domain, measured in fp32 as serving on a CPU computes."""
    dtype = model.dtype
    mark = recognition_mark(FastForward(model.float()), samples)
    model.to(dtype)
    return mark


def describe(folder: Path, recipe: Recipe, training: Facts, quality: Facts) -> BackboneManifest:
    """The manifest of the weights in ``folder``."""
    return BackboneManifest(
        name=NAME,
        description="A 4.7 million parameter video_llama_3 trained on the procedural demo world.",
        domain=recipe.domain,
        frame_pixels=FRAME_PIXELS,
        fps=1.0,
        min_frames=MIN_FRAMES,
        max_frames=MAX_FRAMES,
        prompt=recipe.instructions[0],
        max_new_tokens=160,
        notice=NOTICE,
        fingerprint=checkpoint_fingerprint(folder),
        training=dict(training),
        quality=dict(quality),
    )
