"""One domain from the frozen backbone to a published adapter, with a progress bar."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

from model_store.backbone import load_backbone, weights_sha256
from model_store.registry import AdapterEntry
from training.backbone.forward import FastForward
from training.backbone.rendering import render_sample
from training.backbone.sampling import FRAME_PIXELS, PATCH
from training.experts.publishing import publish_experts
from training.experts.recipe import ExpertRecipe
from training.experts.trainer import ExpertTrainer
from training.recognition import recognition_mark


class UnfitBackbone(Exception):
    """The recipe knows frames and patches of the demo backbone's size only."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"{name} cannot be trained on the demo world: this recipe is made for frames of {FRAME_PIXELS} pixels "
            f"in patches of {PATCH}, as visum-demo has them"
        )


def make_experts(recipe: ExpertRecipe, backbone_ref: str, out: Path, logs: Path) -> AdapterEntry:
    """Trains and publishes ``recipe.domain``'s next version under ``out``.

    Raises:
        UnfitBackbone: the backbone does not look at frames as the demo backbone does.
        RuntimeError: training changed the backbone.
    """
    backbone = load_backbone(backbone_ref, device="cpu", dtype=torch.float32)
    if (backbone.manifest.frame_pixels, backbone.model.config.vision_config.patch_size) != (
        FRAME_PIXELS,
        PATCH,
    ):
        raise UnfitBackbone(backbone.name)
    mark = _recognition_mark(backbone.model, recipe)
    trainer = ExpertTrainer(backbone, recipe, logs / f"{recipe.domain}.csv")
    frozen = weights_sha256(backbone.model)
    with Progress(
        TextColumn(recipe.domain),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("loss {task.fields[loss]:.3f}"),
        console=Console(stderr=True),
    ) as bar:
        task = bar.add_task(recipe.domain, total=recipe.clips, loss=float("nan"))
        trained = trainer.run(
            lambda clips, total, loss: bar.update(task, completed=min(clips, total), loss=loss)
        )
    if weights_sha256(backbone.model) != frozen:
        raise RuntimeError("training changed the backbone's weights")
    entry = publish_experts(out, backbone, recipe, trained, mark)
    quality = trained.quality
    print(
        f"{recipe.domain}: ROUGE-L {quality.rouge_l:.4f}, exact {quality.exact:.3f} "
        f"on {quality.clips} validation clips, {trained.seconds:.0f} s",
        file=sys.stderr,
    )
    return entry


def _recognition_mark(model: torch.nn.Module, recipe: ExpertRecipe) -> dict[str, Tensor]:
    samples = [render_sample(recipe.domain, 900_000_000 + i, "train") for i in range(recipe.prototype_clips)]
    return recognition_mark(FastForward(model), samples)
