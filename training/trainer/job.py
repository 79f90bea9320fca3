"""One training from its first step, or its last checkpoint, to measured weights."""

from __future__ import annotations

import json
import math
import random
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from milora import Routing
from training.signatures import Finding, GateWatch, no_gain, order_not_learned, too_much_decay
from training.trainer.checkpoint import Checkpoints, writing
from training.trainer.config import TrainConfig
from training.trainer.errors import Diverged, NoUsableData, RunExists
from training.trainer.logs import RunLog
from training.trainer.method import Method, Milora
from training.trainer.order import Order
from training.trainer.passes import ForwardPass, Pair
from training.trainer.quality import Quality, answer, judge
from training.trainer.samples import Samples, fingerprint

Progress = Callable[[int, int, float], None]
_DEFAULT_SHARE = 0.75  # of the batches that have the first instruction
_WARMUP_PART = 5  # of the steps at most are warm-up
_LOG_EVERY = 20  # steps between flushes of the log
_LEAST_VIDEOS = 2  # the gates' input is standardized over them


@dataclass(frozen=True)
class Outcome:
    """What a finished run leaves beside the weights that its method holds."""

    quality: Quality | None  # of those weights, on validation clips
    frozen: Quality | None  # of the backbone without them
    best_step: int
    steps: int
    clips: int
    seconds: float
    trainable: int
    findings: tuple[Finding, ...]


@dataclass
class Place:
    """Where a run is: all that a checkpoint says beside its tensors. Whatever is random follows from seed and step."""

    step: int = 0
    clips: int = 0
    seconds: float = 0.0
    best_step: int = 0
    best_score: float = -1.0
    stale: int = 0  # measurements since the best one
    frozen: dict[str, Any] | None = None
    findings: dict[str, list[str]] = field(default_factory=dict)


class Turn(NamedTuple):
    """One sample's turn: which, with which of its references, asked how."""

    index: int
    epoch: int
    instruction: str


class TrainingJob:
    """Trains ``method`` beside a frozen model.

    Args:
        model: the backbone with the method's parts in place, on the device of the run.
        folder: of checkpoints and logs.
        validation: answered now and then, and at the end; the best state by ROUGE-L is kept.
        origin: what else decides the weights, such as the backbone's fingerprint: a run is resumed with the same only.

    Raises:
        NoUsableData: there are too few training samples.
        RuntimeError: a parameter of the backbone would be trained.
    """

    def __init__(
        self,
        model: nn.Module,
        method: Method,
        forward: ForwardPass,
        config: TrainConfig,
        *,
        train: Samples,
        validation: Samples | None,
        folder: Path,
        instruction: str,
        origin: Mapping[str, str] | None = None,
    ) -> None:
        if len(train) < _LEAST_VIDEOS:
            raise NoUsableData(
                f"the training data has {len(train)} usable pairs of a video and a summary: it takes "
                f"{_LEAST_VIDEOS} at least, beside those that are held out"
            )
        self.model, self.method, self.forward, self.config = model, method, forward, config
        self.train, self.validation, self.folder = train, validation, folder
        self.instructions = config.instructions or (instruction,)
        self.origin = dict(origin or {})
        self.accelerator = Accelerator(
            cpu=next(model.parameters()).device.type == "cpu",
            gradient_accumulation_steps=config.schedule.accumulation,
        )
        self.trainable = only_what_is_adapted_learns(model, method)
        self.checkpoints = Checkpoints(folder / "checkpoints")
        counts = train.frame_counts if forward.equal_frames else None
        if counts is None and forward.equal_frames:
            counts = [len(train[index].times_s) for index in range(len(train))]
        self.order = Order(len(train), counts, self._batch_size, config.seed)
        self._groups = method.parameter_groups(config)
        schedule = config.schedule
        self._share = schedule.accumulation * self.accelerator.num_processes  # batches a step
        self.steps = schedule.max_steps or max(1, schedule.epochs * self.order.per_epoch // self._share)
        self._epoch_steps = max(1, round(self.order.per_epoch / self._share))
        self.place = Place()
        self._best: dict[str, Tensor] = {}
        self._restored: dict[str, Tensor] = {}  # the optimizer's, of a checkpoint
        self._gates = GateWatch(method.handle) if isinstance(method, Milora) else None

    def resume(self) -> bool:
        """Go to where the last checkpoint was written; False where there is none.

        Raises:
            RunExists: it was made by other settings or data.
        """
        found = self.checkpoints.read()
        if found is None:
            return False
        saved, tensors = found
        if saved["identity"] != self._identity():
            changed = [
                name for name, value in self._identity().items() if saved["identity"].get(name) != value
            ]
            raise RunExists(
                f"the checkpoint in {self.checkpoints.folder} is of a run with another {' and '.join(changed)}: "
                "resume it as it was started, or start again with --fresh"
            )
        self.place = Place(**saved["place"])
        self.method.load(_under("method/", tensors))
        self._best = _under("best/", tensors)
        self._restored = _under("optimizer/", tensors)
        return True

    def run_to_end(self, on_progress: Progress = lambda step, steps, loss: None) -> Outcome:
        """Train from here to the last step, or until validation stops getting better, and measure.

        Raises:
            Diverged: the loss or its gradient became NaN or infinite; the last good checkpoint is left.
            WriteFailed: the disk is full; the last good checkpoint is left.
        """
        optimizer = self._optimizer()
        if self.place.step == 0:
            self._calibrate()
            if self.config.watch.frozen:
                self.place.frozen = self._measured_together()  # B is zero: the backbone alone answers
        learner, optimizer = self.accelerator.prepare(_Learner(self), optimizer)
        log = self._open_log()
        losses = [float(line["loss"]) for line in log.kept] if log else []
        norms = [float(line["frobenius"] or 0) for line in log.kept] if log else []
        started, batches = time.monotonic() - self.place.seconds, self._batches()
        try:
            self.method.module.train()
            while self.place.step < self.steps and not self._stopped_early():
                line = self._step(learner, optimizer, batches)
                self.place.seconds = time.monotonic() - started
                losses.append(line["loss"])
                norms.append(line.get("frobenius", 0.0))
                on_progress(self.place.step, self.steps, line["loss"])
                if self._is_due(self.config.watch.evaluate_every):
                    line |= _figures(self._look(losses, norms))
                self._note(log, line)
                if self._is_due(self.config.watch.checkpoint_every):
                    self._save(optimizer, log)
            self._is_sound()
            if not self._is_due(self.config.watch.checkpoint_every):
                self._save(optimizer, log)  # what comes now may fail too
        finally:
            if log is not None:
                with self._writing_log():
                    log.close()
        return self._finish(losses, norms)

    # -- one step ----------------------------------------------------------------------------------

    def _step(
        self, learner: nn.Module, optimizer: Any, batches: Iterator[tuple[int, Any]]
    ) -> dict[str, float]:
        seed_everything(self.config.seed, self.place.step, self.accelerator.process_index)
        factor = self._factor(self.place.step)
        for group in optimizer.param_groups:
            group["lr"] = group["peak"] * factor
        line: dict[str, float] = {}
        for part in range(self.config.schedule.accumulation):
            epoch, batch = next(batches)
            clips = self.forward.clips(batch)
            with (
                self.accelerator.accumulate(learner),
                self.method.training(self.forward.rows(batch)) as routing,
            ):
                loss, parts = learner(
                    batch, routing, self.place.step * self.config.schedule.accumulation + part
                )
                if not math.isfinite(loss.item()):
                    raise self._diverged("loss", loss.item(), epoch)
                self.accelerator.backward(loss)
                if self.accelerator.sync_gradients:
                    params = [p for group in optimizer.param_groups for p in group["params"]]
                    norm = self.accelerator.clip_grad_norm_(params, self.config.schedule.clip_norm)
                    if norm is not None and not math.isfinite(norm.item()):
                        raise self._diverged("gradient's norm", norm.item(), epoch)
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
            if self._gates is not None and routing is not None:
                parts["entropy"] = self._gates.see(routing)
            for name, value in parts.items():
                line[name] = line.get(name, 0.0) + value / self.config.schedule.accumulation
            self.place.clips += clips * self.accelerator.num_processes
        self.place.step += 1
        return line | {
            "step": self.place.step, "epoch": epoch, "clips": self.place.clips,
            "seconds": round(self.place.seconds, 1), "lr": factor * self.config.schedule.matrix_lr,
        }  # fmt: skip

    def _diverged(self, what: str, value: float, epoch: int) -> Diverged:
        """The error to raise. A checkpoint of the weights that gave this value is none to go on from."""
        if self.accelerator.is_main_process:
            self.checkpoints.discard(self.place.step)
        return Diverged(
            f"the {what} became {value} at step {self.place.step + 1} (epoch {epoch + 1}); {self._what_is_left()}. "
            "Lower schedule.matrix_lr and start again with --fresh"
        )

    def _is_sound(self) -> None:
        """The last step's weights give a loss too, though no step comes after it.

        Raises:
            Diverged: they give none.
        """
        batch = self.order.epoch(0)[0]
        read = self.forward.read([Pair.of(self.train[index], self.instructions[0]) for index in batch])
        with torch.no_grad(), self.method.training(self.forward.rows(read)):
            loss = self.forward.loss(read, None).item()
        if not math.isfinite(loss):
            raise self._diverged("loss", loss, self.config.schedule.epochs - 1)

    def _factor(self, step: int) -> float:
        """Warm-up times a cosine over all steps, as a share of the full rates."""
        schedule = self.config.schedule
        rising = min(schedule.warmup_steps, self.steps // _WARMUP_PART)
        warm = min(1.0, (step + 1) / rising) if rising else 1.0
        return max(schedule.floor, warm * 0.5 * (1 + math.cos(math.pi * step / self.steps)))

    def _batch_size(self, frames: int) -> int:
        schedule = self.config.schedule
        if not schedule.tokens_per_batch:
            return schedule.batch_size
        return max(1, round(schedule.tokens_per_batch / self.forward.positions(frames)))

    def _batches(self) -> Iterator[tuple[int, Any]]:
        """(epoch, batch) of this process from the present step on."""
        first = self.place.step * self._share + self.accelerator.process_index
        loader = DataLoader(
            _Reading(self.train),
            batch_sampler=self._turns(first),
            collate_fn=_Reader(self.forward.read),
            num_workers=self.config.machine.loaders,
            multiprocessing_context="forkserver" if self.config.machine.loaders else None,
        )
        return iter(loader)

    def _turns(self, first: int) -> Iterator[list[Turn]]:
        number = first
        for epoch, batch in self.order.after(first, every=self.accelerator.num_processes):
            rng = random.Random(f"{self.config.seed}/{number}")
            words = self.instructions[0]
            if len(self.instructions) > 1 and rng.random() >= _DEFAULT_SHARE:
                words = rng.choice(self.instructions[1:])
            yield [Turn(index, epoch, words) for index in batch]
            number += self.accelerator.num_processes

    def _calibrate(self) -> None:
        """Lets the gates see their inputs; every process sees the same."""
        wanted = min(self.config.watch.calibration_clips, len(self.train))
        seed_everything(self.config.seed, -1, 0)
        with self.method.calibrating():
            for batch in self.order.epoch(0):
                if wanted <= 0:
                    break
                pairs = [Pair.of(self.train[index], self.instructions[0]) for index in batch]
                read = self.forward.read(pairs)
                with torch.no_grad(), self.method.training(self.forward.rows(read)):
                    self.forward.loss(read, self.noise(-1))
                wanted -= len(batch)

    def noise(self, batch: int) -> torch.Generator | None:
        """What disturbs the pictures of a batch of the run, by its number."""
        if not self.config.augment:
            return None
        return torch.Generator().manual_seed(mixed(self.config.seed, batch, self.accelerator.process_index))

    def _optimizer(self) -> torch.optim.Optimizer:
        """AdamW, with the state of the checkpoint if there was one."""
        optimizer = torch.optim.AdamW(self._groups, lr=1.0, betas=(0.9, 0.98), weight_decay=0.0)
        if self._restored:
            state: dict[int, dict[str, Tensor]] = {}
            for name, tensor in self._restored.items():
                place, key = name.split("/")
                state.setdefault(int(place), {})[key] = tensor
            optimizer.load_state_dict(
                {"state": state, "param_groups": optimizer.state_dict()["param_groups"]}
            )
        return optimizer

    # -- looking, keeping ----------------------------------------------------------------------------

    def _look(self, losses: list[float], norms: list[float]) -> dict[str, Any] | None:
        """Measure, remember the best state, and say what looks wrong."""
        told = self._measured_together()
        if told is not None:
            score = told["rouge_l"]
            self.place.stale += 1
            if score > self.place.best_score:
                self.place.best_score, self.place.best_step, self.place.stale = score, self.place.step, 0
                self._best = {name: tensor.detach().clone() for name, tensor in self.method.state().items()}
        new = self._what_looks_wrong(losses, norms, told)
        for finding in new if self.place.step < self.steps else ():  # those of the end are the outcome's
            self.accelerator.print(f"step {self.place.step}: {finding}", file=sys.stderr, flush=True)
        return told

    def _what_looks_wrong(
        self, losses: list[float], norms: list[float], told: dict[str, Any] | None
    ) -> list[Finding]:
        """Keeps all that looks wrong now; returns what did not before."""
        found = list(too_much_decay(losses, norms)) if any(norms) else []  # no penalty, no norms
        if self._gates is not None:
            found += self._gates.findings()
        if told is not None:
            quality = Quality.of(told)
            frozen = Quality.of(self.place.frozen) if self.place.frozen else None
            found += [*order_not_learned(quality), *no_gain(quality, frozen)]
        told_before = set(self.place.findings)
        self.place.findings = {finding.code: [finding.seen, finding.advice] for finding in found}
        return [finding for finding in found if finding.code not in told_before]

    def _measured_together(self) -> dict[str, Any] | None:
        """The quality now as JSON, measured by the first process and told to all."""
        told: list[Any] = [None]
        if self.accelerator.is_main_process:
            quality = self.measure()
            told = [None if quality is None else quality.as_json()]
        if self.accelerator.num_processes > 1:
            broadcast_object_list(told)
        return told[0]

    def measure(self, samples: Samples | None = None, clips: int | None = None) -> Quality | None:
        """The quality of what is trained on validation samples, or on others; None where there are none."""
        samples = samples or self.validation
        clips = self.config.watch.validation_clips if clips is None else clips
        if samples is None or len(samples) == 0 or clips == 0:
            return None
        limit = self.config.watch.answer_tokens
        answers = answer(self.forward, self.method, samples, self.instructions[0], clips=clips, limit=limit)
        return judge(samples, answers)

    def _is_due(self, every: int | Literal["epoch"]) -> bool:
        steps = self._epoch_steps if every == "epoch" else every
        return steps > 0 and self.place.step % steps == 0

    def _stopped_early(self) -> bool:
        patience = self.config.watch.patience
        return 0 < patience <= self.place.stale

    def _open_log(self) -> RunLog | None:
        """The first process's log; the others write none."""
        if not self.accelerator.is_main_process:
            return None
        with self._writing_log():
            return RunLog(self.folder, self.place.step, tensorboard=self.config.machine.tensorboard)

    def _note(self, log: RunLog | None, line: dict[str, float]) -> None:
        if log is None:
            return
        with self._writing_log():
            log.write(line)
            if self.place.step % _LOG_EVERY == 0:
                log.flush()

    def _writing_log(self) -> AbstractContextManager[None]:
        return writing(f"the log in {self.folder}", self.checkpoints.newest())

    def _save(self, optimizer: Any, log: RunLog | None) -> None:
        if log is None:
            return
        with self._writing_log():
            log.flush()
        inner = getattr(optimizer, "optimizer", optimizer).state_dict()["state"]
        tensors = {f"method/{name}": tensor for name, tensor in self.method.state().items()}
        tensors |= {f"best/{name}": tensor for name, tensor in self._best.items()}
        tensors |= {f"optimizer/{i}/{key}": value for i, kept in inner.items() for key, value in kept.items()}
        saved = {"identity": self._identity(), "place": self.place.__dict__}
        self.checkpoints.write(self.place.step, saved, tensors)

    def _identity(self) -> dict[str, Any]:
        """What a run to be resumed must share with this one."""
        return {
            "config": json.loads(json.dumps(self.config.learned())),
            "precision": self.config.machine.precision,
            "data": fingerprint(self.train),
            "processes": self.accelerator.num_processes,
            "forward pass": type(self.forward).__name__,
            "number of steps": self.steps,
            **self.origin,
        }

    def _finish(self, losses: list[float], norms: list[float]) -> Outcome:
        """The best state, rounded as it ships and measured."""
        if self.config.watch.evaluate_every != 0 and not self._is_due(self.config.watch.evaluate_every):
            self._look(losses, norms)
        if self._best and self.place.best_step != self.place.step:
            self.method.load(self._best)
        if isinstance(self.method, Milora):
            self.method.round()
        self.method.module.eval()
        told = self._measured_together()
        self._what_looks_wrong(losses, norms, told)
        return Outcome(
            quality=Quality.of(told) if told else None,
            frozen=Quality.of(self.place.frozen) if self.place.frozen else None,
            best_step=self.place.best_step or self.place.step,
            steps=self.place.step,
            clips=self.place.clips,
            seconds=self.place.seconds,
            trainable=self.trainable,
            findings=tuple(Finding(code, *words) for code, words in self.place.findings.items()),
        )

    def _what_is_left(self) -> str:
        newest = self.checkpoints.newest()
        return f"the last good checkpoint is {newest}" if newest else "there was no checkpoint yet"


class _Learner(nn.Module):
    """Loss and penalties of one batch as one module, so that several processes can share gradients."""

    def __init__(self, job: TrainingJob) -> None:
        super().__init__()
        self.trained = job.method.module
        self._job = [job]  # in a list: the frozen backbone is no part of this module

    def forward(self, batch: Any, routing: Routing | None, number: int) -> tuple[Tensor, dict[str, float]]:
        (job,) = self._job
        summary_loss = job.forward.loss(batch, job.noise(number))
        penalty, parts = job.method.penalty(routing)
        return summary_loss + penalty, {"loss": summary_loss.item(), **parts}


class _Reading(Dataset):
    """Samples as pairs."""

    def __init__(self, samples: Samples) -> None:
        self._samples = samples

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, turn: Turn) -> tuple[int, Pair]:
        return turn.epoch, Pair.of(self._samples[turn.index], turn.instruction, turn.epoch)


class _Reader:
    """What a loader does with a batch's pairs."""

    def __init__(self, read: Callable[[list[Pair]], Any]) -> None:
        self._read = read

    def __call__(self, pairs: list[tuple[int, Pair]]) -> tuple[int, Any]:
        return pairs[0][0], self._read([pair for _, pair in pairs])


def only_what_is_adapted_learns(model: nn.Module, method: Method) -> int:
    """How many numbers are trained.

    Raises:
        RuntimeError: a parameter that is not the method's receives gradients, or none of the method's does.
    """
    own = {id(parameter) for parameter in method.module.parameters()}
    foreign = [name for name, p in model.named_parameters() if p.requires_grad and id(p) not in own]
    if foreign:
        raise RuntimeError(f"the backbone is not frozen: {foreign[:3]} would be trained")
    trained = sum(p.numel() for p in method.module.parameters() if p.requires_grad)
    if not trained:
        raise RuntimeError("nothing would be trained")
    return trained


def seed_everything(*numbers: int) -> None:
    """Every generator starts anew from these numbers: nothing random depends on what ran before."""
    seed = mixed(*numbers)
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def mixed(*numbers: int) -> int:
    """One seed of several numbers."""
    return random.Random("/".join(map(str, numbers))).getrandbits(63)


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _figures(quality: dict[str, Any] | None) -> dict[str, float]:
    return {} if quality is None else Quality.of(quality).figures()
