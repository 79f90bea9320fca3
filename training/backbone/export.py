"""The finished folder: what stock ``transformers`` loads, our manifest, the recognition mark and a model card."""

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn
from transformers import PreTrainedTokenizerFast

from model_store.checkpoint import checkpoint_fingerprint
from model_store.files import write_durably
from model_store.manifest import BACKBONE_FILE, ROUTER_FILE, BackboneManifest, manifest_bytes
from training.backbone.design import design_of
from training.backbone.model_card import model_card
from training.backbone.recipe import Recipe
from training.backbone.rendering import Sample
from training.backbone.sampling import FRAME_PIXELS, MAX_FRAMES, MIN_FRAMES
from training.recognition import recognition_mark

Facts = Mapping[str, float | int | str]


def export_backbone(
    model: nn.Module,
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
    design_of(model).processor(tokenizer).save_pretrained(folder)
    save_file(general_mark(model, samples), folder / ROUTER_FILE)
    write_durably(folder / BACKBONE_FILE, manifest_bytes(describe(model, folder, recipe, training, quality)))
    facts = {**quality, **training}
    design = design_of(model)
    (folder / "README.md").write_text(model_card(design.name, design.card, recipe, facts))


def general_mark(model: nn.Module, samples: list[Sample]) -> dict[str, torch.Tensor]:
    """The recognition mark of the backbone's own domain, measured in fp32 as serving on a CPU computes."""
    dtype = model.dtype
    mark = recognition_mark(design_of(model).forward(model.float()), samples)
    model.to(dtype)
    return mark


def describe(
    model: nn.Module, folder: Path, recipe: Recipe, training: Facts, quality: Facts
) -> BackboneManifest:
    """The manifest of the weights in ``folder``."""
    design = design_of(model)
    return BackboneManifest(
        name=design.name,
        description=design.card.description,
        domain=recipe.domain,
        frame_pixels=FRAME_PIXELS,
        fps=1.0,
        min_frames=MIN_FRAMES,
        max_frames=MAX_FRAMES,
        prompt=recipe.instructions[0],
        max_new_tokens=160,
        notice=design.card.notice,
        fingerprint=checkpoint_fingerprint(folder),
        training=dict(training),
        quality=dict(quality),
    )
