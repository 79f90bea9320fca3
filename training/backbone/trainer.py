"""The training run: tokenizer, dense vision pre-training, captions; resumable at every checkpoint."""

import os
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import torch
from torch import nn
from transformers import PreTrainedTokenizerFast

from training.backbone.batches import Batch, collate, group_samples, pick_instruction
from training.backbone.budget import Budget, learning_rate_factor
from training.backbone.checkpoint import Position, read_checkpoint, write_checkpoint
from training.backbone.dense_pretrain import DenseHeads, dense_loss
from training.backbone.design import VIDEO_LLAMA_3, Design
from training.backbone.log import TrainingLog
from training.backbone.muon import MuonAdamW
from training.backbone.pixels import disturb, normalize
from training.backbone.recipe import Recipe
from training.backbone.rendering import Shard, render_shards
from training.backbone.repetition import make_repetition
from training.backbone.sampling import MAX_FRAMES
from training.backbone.tokenizer import learn_tokenizer, load_tokenizer
from training.backbone.validation import measure, validation_samples
from training.world import make_clip

PHASES = ("dense", "captions", "done")
FIRST_SEED = {
    "dense": 499_996_800,
    "captions": 0,
}  # both phases draw from the train split, from ends of their own


class Trainer:
    """One run in the folder ``out``. ``run`` goes on from the checkpoint that it finds there."""

    def __init__(self, recipe: Recipe, budget: Budget, out: Path, design: Design = VIDEO_LLAMA_3) -> None:
        torch.set_num_threads(recipe.threads)
        torch.manual_seed(recipe.seed)
        self.recipe, self.out, self.design = recipe, out, design
        self.budgets = {
            "dense": budget.share(recipe.dense_share),
            "captions": budget.share(1 - recipe.dense_share),
        }
        self.log = TrainingLog(out / "train.jsonl")
        self.tokenizer = prepare_tokenizer(recipe, out / "tokenizer.json")
        self.model = design.build(self.tokenizer, recipe.vocabulary).bfloat16()
        size = self.model.config
        self.heads = DenseHeads(
            size.vision_config.hidden_size, size.text_config.hidden_size, design.frames_a_token
        ).bfloat16()
        self.fast = design.forward(self.model, compiled=recipe.compiled)
        self.plain = design.forward(
            self.model
        )  # for evaluation, whose shapes would make the compiled one recompile
        self.position = Position("dense")
        self.optimizer = self._optimizer()
        self.validation = validation_samples(recipe, recipe.validation_clips)

    def run(self) -> nn.Module:
        """Train to the end of the budget; the trained model."""
        self._resume()
        parameters = sum(p.numel() for p in self.model.parameters())
        self.log.write(
            "start", {"phase": self.position.phase, "parameters": parameters, "tokens": len(self.tokenizer)}
        )
        while self.position.phase != "done":
            self._run_phase()
            phase = PHASES[PHASES.index(self.position.phase) + 1]
            self.position = Position(
                phase, total_seconds=self.position.total_seconds, caption_clips=self.position.caption_clips
            )
            # The next phase starts from bf16-rounded weights with empty momentum; a resumed run does the same.
            self.optimizer = self._optimizer()
            self._save()
        return self.model

    def restore(self) -> nn.Module:
        """The model as the checkpoint holds it, without training.

        Raises:
            FileNotFoundError: there is no checkpoint.
        """
        if not self._resume():
            raise FileNotFoundError(f"no checkpoint in {self.out}")
        return self.model

    @property
    def clips_seen(self) -> int:
        """Captioned clips used so far."""
        return self.position.caption_clips

    def _run_phase(self) -> None:
        budget, position, recipe = self.budgets[self.position.phase], self.position, self.recipe
        meter = Meter(position.clips)
        saved = evaluated = time.monotonic()
        batches = self._batches()
        before = time.monotonic()
        while (progress := budget.progress(position.seconds, position.clips)) < 1:
            batch, shard, group = next(batches)
            meter.waited += time.monotonic() - before
            if position.phase == "captions" and position.step % recipe.repeat_every == 0:
                meter.repeated.append(self._repeat(progress))
            loss = self._step(batch, progress)
            position.shard, position.group = shard, group + 1
            position.step += 1
            position.clips += batch.clips
            position.caption_clips += batch.clips if position.phase == "captions" else 0
            now = time.monotonic()
            position.seconds += now - before
            position.total_seconds += now - before
            before = now
            if meter.add(loss, now) >= recipe.log_every_s or position.step == 1:
                self.log.write(position.phase, meter.report(position, progress))
            if now - evaluated > recipe.evaluate_every_s:
                self._evaluate()
                evaluated = time.monotonic()
            if now - saved > recipe.checkpoint_every_s:
                self._save()
                saved = time.monotonic()
        batches.close()
        self._evaluate()

    def _step(self, batch: Batch, progress: float) -> float:
        recipe, position = self.recipe, self.position
        noise = torch.Generator().manual_seed(_mix(recipe.seed, position.phase == "dense", position.step))
        pictures = self.fast.pictures(disturb(normalize(batch.frames), noise))
        factor = learning_rate_factor(progress, position.step, recipe.warmup_steps)
        if position.phase == "dense":
            loss = dense_loss(self.fast, self.heads, pictures, batch.labels)
            muon_lr = recipe.dense_muon_lr
        else:
            loss = self.fast.loss(pictures, batch.prompt, batch.answer, batch.lengths)
            muon_lr = recipe.muon_lr
        loss.backward()
        self.optimizer.step(muon_lr * factor, recipe.adam_lr * factor)
        return float(loss.detach())

    def _repeat(self, progress: float) -> float:
        """One text-only step."""
        recipe, position = self.recipe, self.position
        seed = _mix(recipe.seed, position.step)
        exercise = make_repetition(self.tokenizer, recipe.repeat_sequences, seed)
        factor = learning_rate_factor(progress, position.step, recipe.warmup_steps)
        loss = self.fast.loss(None, exercise.prompt, exercise.answer, exercise.lengths)
        loss.backward()
        self.optimizer.step(recipe.muon_lr * factor, recipe.adam_lr * factor)
        return float(loss.detach())

    def _batches(self) -> Iterator[tuple[Batch, int, int]]:
        """Batches from the run's position on, each with its shard and its place in the shard."""
        recipe, skip = self.recipe, self.position.group
        for shard, samples in render_shards(self._shards(), recipe.renderers):
            groups = group_samples(samples, recipe, _mix(recipe.seed, shard.number))
            for place, members in enumerate(groups[skip:], start=skip):
                instruction = pick_instruction(recipe, _mix(recipe.seed, shard.number, place))
                yield collate(members, self.tokenizer, instruction, self.design), shard.number, place
            skip = 0

    def _shards(self) -> Iterator[Shard]:
        recipe, phase = self.recipe, self.position.phase
        dense = phase == "dense"
        for number in count(self.position.shard):
            first = FIRST_SEED[phase] + number * 10 * recipe.shard_clips
            # Decided by the shard's number, not by the clock, so that a resumed run sees the same clips.
            longest = MAX_FRAMES if dense else recipe.longest_clip(number * recipe.shard_clips)
            yield Shard(number, recipe.domain, "train", first, recipe.shard_clips, longest, labelled=dense)

    def _evaluate(self) -> None:
        started = time.monotonic()
        self.model.eval()
        if self.position.phase == "captions":
            quality = measure(self.plain, self.tokenizer, self.validation, self.recipe.instructions[0])
            values = {"exact": quality.exact, "rougeL": quality.rouge_l, "answer": quality.example,
                      "reference": quality.reference}  # fmt: skip
            self.log.write("validate", {**values, "seconds": time.monotonic() - started})

    def _optimizer(self) -> MuonAdamW:
        dense = self.position.phase == "dense"
        parts = self.plain
        modules: dict[str, nn.Module] = {"vision": parts.vision, "projector": parts.projector}
        modules |= {"heads": self.heads} if dense else {"text": parts.text}
        scale = {"vision": 1.0 if dense else self.recipe.vision_lr_scale}
        named = {
            f"{part}.{name}": (parameter, scale.get(part, 1.0))
            for part, module in modules.items()
            for name, parameter in module.named_parameters()
        }
        outer = ("heads", "text.embed_tokens", "vision.embeddings")
        inner = {name for name, (p, _) in named.items() if is_matrix(p) and not name.startswith(outer)}
        return MuonAdamW(named, inner, weight_decay=self.recipe.weight_decay)

    def _save(self) -> None:
        tensors = self.optimizer.state()
        self.position.updates = self.optimizer.steps
        if self.position.phase == "dense":
            rest = self.plain.text.named_parameters()
            tensors |= {f"frozen/{name}": parameter.detach() for name, parameter in rest}
        write_checkpoint(self.out / "checkpoint", self.position, tensors)

    def _resume(self) -> bool:
        """Go to where the checkpoint was written; False where there is none."""
        found = read_checkpoint(self.out / "checkpoint")
        if found is None:
            return False
        self.position, tensors = found
        self.optimizer = self._optimizer()
        self.optimizer.load_state(tensors, self.position.updates)
        if self.position.phase == "dense":
            with torch.no_grad():
                for name, parameter in self.plain.text.named_parameters():
                    parameter.copy_(tensors[f"frozen/{name}"])
        return True


class Meter:
    """Running numbers between two lines of the log."""

    def __init__(self, clips: int) -> None:
        self.since, self.clips, self.waited = time.monotonic(), clips, 0.0
        self.losses: list[float] = []
        self.repeated: list[float] = []

    def add(self, loss: float, now: float) -> float:
        """Note one step's loss; seconds since the last report."""
        self.losses.append(loss)
        return now - self.since

    def report(self, position: Position, progress: float) -> dict[str, float | int]:
        """The numbers since the last report, and a fresh start."""
        now = time.monotonic()
        spent = max(now - self.since, 1e-9)
        left = position.seconds * (1 - progress) / max(progress, 1e-9)
        values = {
            "step": position.step,
            "clips": position.clips,
            "loss": sum(self.losses) / len(self.losses),
            "clips_per_s": round((position.clips - self.clips) / spent, 1),
            "waited": round(self.waited / spent, 3),  # share of the time spent waiting for the renderers
            "progress": round(progress, 4),
            "eta_min": round(left / 60, 1),
        }
        if self.repeated:
            values["repeat_loss"] = self.repeated[-1]
        self.since, self.clips, self.waited = now, position.clips, 0.0
        self.losses, self.repeated = [], []
        return values


def is_matrix(parameter: nn.Parameter) -> bool:
    """Whether it mixes channels: the weight of a linear layer, or of a convolution that is not depthwise."""
    return parameter.ndim >= 2 and parameter.shape[1] > 1


def prepare_tokenizer(recipe: Recipe, path: Path) -> PreTrainedTokenizerFast:
    """The run's tokenizer: learned once from the training split's summaries, read back ever after."""
    if path.is_file():
        return load_tokenizer(path)
    summaries = [make_clip(recipe.domain, seed, "train").summary for seed in range(recipe.tokenizer_clips)]
    tokenizer = learn_tokenizer(summaries, recipe.instructions, recipe.vocabulary)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(f".{os.getpid()}")
    tokenizer.backend_tokenizer.save(str(partial))
    partial.replace(path)
    return tokenizer


def _mix(*numbers: int) -> int:
    """One seed of several numbers."""
    seed = 0
    for number in numbers:
        seed = (seed * 1_000_003 + int(number) + 1) % (2**63 - 1)
    return seed
