"""The experts' training loop: composite loss, gradients to A, B, G and a alone, one pass over fresh clips."""

from __future__ import annotations

import csv
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from milora import AdapterState, MiloraModel, balance, frobenius, inject
from model_store.backbone import Backbone
from training.backbone.batches import Batch, collate, group_samples, pick_instruction
from training.backbone.pixels import disturb, normalize, patchify
from training.backbone.recipe import Recipe
from training.backbone.rendering import Shard, render_shards
from training.backbone.sampling import PATCHES_PER_FRAME
from training.backbone.validation import Quality, validation_samples
from training.experts.answers import answer_with_experts
from training.experts.forward import AdaptedForward
from training.experts.recipe import ExpertRecipe

Progress = Callable[[int, int, float], None]


@dataclass(frozen=True)
class Trained:
    """What a run leaves: the adapter, how it did on validation clips, and what it took."""

    state: AdapterState
    quality: Quality
    steps: int
    clips: int
    seconds: float
    trainable_parameters: int
    backbone_parameters: int


class ExpertTrainer:
    """Trains one domain's experts on a frozen backbone.

    The backbone is cast to bfloat16 for the run; experts, gates and optimizer state stay in float32.
    """

    def __init__(self, backbone: Backbone, recipe: ExpertRecipe, log: Path) -> None:
        torch.set_num_threads(recipe.threads)
        torch.manual_seed(recipe.seed)
        self.recipe, self.log = recipe, log
        self.tokenizer = backbone.processor.tokenizer
        self.model = backbone.model.to(torch.bfloat16)
        self.backbone_parameters = sum(p.numel() for p in self.model.parameters())
        self.handle = inject(self.model, recipe.milora(), seed=recipe.seed, dtype=torch.float32)
        self.fast = AdaptedForward(self.model)
        _only_experts_learn(self.model)
        self.optimizer, self.trainable = _optimizer(self.handle, recipe)
        self.noise = torch.Generator().manual_seed(recipe.seed)
        self.stream = replace(Recipe(), domain=recipe.domain, tokens_per_step=recipe.tokens_per_step)

    def run(self, on_progress: Progress) -> Trained:
        """Calibrates the gates, trains on ``recipe.clips`` clips, measures on validation clips."""
        held_out = validation_samples(self.stream, self.recipe.validation_clips)
        start, clips, steps, measured = time.monotonic(), 0, 0, 0
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("w", newline="") as sink:
            writer = csv.writer(sink)
            writer.writerow(["step", "clips", "seconds", "loss", "balance", "frobenius", "exact", "rouge_l"])
            batches = self._batches()
            self._calibrate(batches)
            for batch in batches:
                self._schedule(steps, clips)
                parts = self._step(batch)
                steps, clips = steps + 1, clips + batch.clips
                on_progress(clips, self.recipe.clips, parts[0])
                quality = None
                if self.recipe.clips > clips >= measured + self.recipe.evaluate_every_clips:
                    measured, quality = clips, self._measure(held_out)
                if steps % 20 == 0 or quality is not None:
                    seen = (quality.exact, quality.rouge_l) if quality else ("", "")
                    writer.writerow([steps, clips, round(time.monotonic() - start, 1), *parts, *seen])
                    sink.flush()
                if clips >= self.recipe.clips:
                    break
        seconds = time.monotonic() - start
        self._round()
        quality = self._measure(held_out)
        return Trained(
            self.handle.export_state(),
            quality,
            steps,
            clips,
            seconds,
            self.trainable,
            self.backbone_parameters,
        )

    def _batches(self) -> Iterator[Batch]:
        size = self.stream.shard_clips
        shards = (
            Shard(number, self.recipe.domain, "train", number * size, size) for number in range(10**9 // size)
        )
        for shard, samples in render_shards(shards, self.recipe.renderers):
            for group in group_samples(samples, self.stream, self.recipe.seed + shard.first_seed):
                yield collate(group, self.tokenizer, pick_instruction(self.stream, group[0].seed))

    def _forward(self, batch: Batch) -> Tensor:
        pixels = disturb(normalize(batch.frames), self.noise)
        return self.fast.loss(patchify(pixels), batch.prompt, batch.answer, batch.lengths)

    def _routing(self, batch: Batch):
        """The adapter's pass over a batch: gates pool over patches in the tower, over the prompt behind it."""
        positions = batch.prompt.shape[1] + batch.answer.shape[1] - 1
        mask = torch.zeros(batch.clips, positions, dtype=torch.bool)
        mask[:, : batch.prompt.shape[1]] = True
        return self.handle.training_pass(
            prompt_mask=mask, patches=[batch.frames.shape[1] * PATCHES_PER_FRAME] * batch.clips
        )

    def _calibrate(self, batches: Iterator[Batch]) -> None:
        seen = 0
        with self.handle.calibrate():
            while seen < self.recipe.calibration_clips:
                batch = next(batches)
                with self._routing(batch):
                    self._forward(batch)
                seen += batch.clips

    def _step(self, batch: Batch) -> tuple[float, float, float]:
        with self._routing(batch) as routing:
            summary_loss = self._forward(batch)
            norm, uneven = frobenius(self.handle), balance(routing)
            loss = summary_loss + self.recipe.frobenius * norm + self.recipe.balance * uneven
            loss.backward()
        torch.nn.utils.clip_grad_norm_([p for g in self.optimizer.param_groups for p in g["params"]], 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return summary_loss.item(), uneven.item(), norm.item()

    def _schedule(self, step: int, clips: int) -> None:
        warm = min(1.0, (step + 1) / self.recipe.warmup_steps)
        factor = warm * 0.5 * (1 + math.cos(math.pi * min(1.0, clips / self.recipe.clips)))
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak"] * max(factor, 1e-3)

    @torch.no_grad()
    def _round(self) -> None:
        """A and B become what is published, bfloat16 numbers, so that what is measured is what ships."""
        for layer in self.handle.layers:
            layer.A.copy_(layer.A.bfloat16())
            layer.B.copy_(layer.B.bfloat16())

    def _measure(self, samples: list) -> Quality:
        return answer_with_experts(
            self.fast, self.handle, self.tokenizer, samples, self.stream.instructions[0]
        )


def _only_experts_learn(model: nn.Module) -> None:
    """Raises RuntimeError if a parameter of the backbone itself would receive gradients."""
    open_ones = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    if open_ones:
        raise RuntimeError(f"the backbone is not frozen: {open_ones[:3]} would be trained")


def _optimizer(handle: MiloraModel, recipe: ExpertRecipe) -> tuple[torch.optim.Optimizer, int]:
    """AdamW over A, B, G and a, and how many numbers they are."""
    spatial = {id(p) for layer in handle.layers_of("spatial") for p in (layer.A, layer.B)}
    kinds = handle.trainable_parameters()
    matrices = [*kinds["A"], *kinds["B"]]
    groups = [
        {"params": [p for p in matrices if id(p) not in spatial], "peak": recipe.matrix_lr},
        {
            "params": [p for p in matrices if id(p) in spatial],
            "peak": recipe.matrix_lr * recipe.vision_lr_scale,
        },
        {"params": kinds["G"], "peak": recipe.gate_lr},
        {"params": kinds["a"], "peak": recipe.fusion_lr},
    ]
    optimizer = torch.optim.AdamW(groups, lr=recipe.matrix_lr, betas=(0.9, 0.98), weight_decay=0.0)
    return optimizer, sum(p.numel() for kind in kinds.values() for p in kind)
