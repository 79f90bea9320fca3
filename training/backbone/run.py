"""One complete run: train, measure on held-out clips, export."""

import platform
from pathlib import Path

import torch

from training.backbone.budget import Budget
from training.backbone.design import VIDEO_LLAMA_3, Design
from training.backbone.export import export_backbone
from training.backbone.recipe import Recipe
from training.backbone.trainer import Trainer
from training.backbone.validation import measure, validation_samples

MEASURED_CLIPS = 200
ROUTER_CLIPS = 400


def make_backbone(
    recipe: Recipe, budget: Budget, out: Path, design: Design = VIDEO_LLAMA_3, *, export_only: bool = False
) -> Path:
    """Train in ``out`` and export to the folder of the design's name in it, which is returned."""
    trainer = Trainer(recipe, budget, out, design)
    model = trainer.restore() if export_only else trainer.run()
    samples = validation_samples(recipe, max(MEASURED_CLIPS, ROUTER_CLIPS))
    quality = measure(trainer.plain, trainer.tokenizer, samples[:MEASURED_CLIPS], recipe.instructions[0])
    training = {
        "clips_seen": trainer.clips_seen,
        "minutes": trainer.position.total_seconds / 60,
        "machine": f"{recipe.threads} CPU cores, {platform.machine()}, torch {torch.__version__}",
        "parameters": sum(p.numel() for p in model.parameters()),
    }
    measured = {
        "exact_match": quality.exact,
        "rouge_l": quality.rouge_l,
        "measured_on": f"{quality.clips} held-out validation clips of {recipe.domain}",
    }
    folder = out / design.name
    export_backbone(model, trainer.tokenizer, recipe, samples[:ROUTER_CLIPS], training, measured, folder)
    print(f"exported {folder}: exact {quality.exact:.3f}, ROUGE-L {quality.rouge_l:.4f}")
    return folder
