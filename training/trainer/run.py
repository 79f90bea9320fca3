"""One domain from a frozen backbone and samples to a published adapter, with a progress bar."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

from milora import ConfigError, UnsupportedLayer
from model_store.backbone import Backbone, load_backbone, weights_sha256
from model_store.registry import DOMAIN_NAME, DOMAIN_RULE, AdapterEntry, AdapterRegistry
from training.recognition import gaussian
from training.trainer.checkpoint import writing
from training.trainer.config import TrainConfig
from training.trainer.errors import InvalidConfig, NoUsableData, RunExists
from training.trainer.fast import FastPass, fits_fast
from training.trainer.job import Outcome, TrainingJob
from training.trainer.method import Milora
from training.trainer.passes import ForwardPass, Pair
from training.trainer.publishing import About, publish_adapter
from training.trainer.samples import Samples, VideoSample
from training.trainer.stock import StockPass


@dataclass(frozen=True)
class Plan:
    """One training: what of, with what, from what, to where."""

    about: About
    backbone: str
    config: TrainConfig
    train: Samples
    validation: Samples | None
    folder: Path  # of checkpoints and logs
    roots: tuple[Path, ...]  # folders of adapters, the last of which is published to
    store: Path | None = None
    resume: bool = False
    fresh: bool = False


def train_and_publish(plan: Plan, tell: Callable[[str], None]) -> tuple[AdapterEntry | None, Outcome]:
    """Trains, measures, publishes the domain's next version; checkpoints of the finished run are removed.

    Under several processes only the first one publishes; the others return None.

    Raises:
        TrainingError: see `training.trainer.errors`.
        PublishRefused: the adapter does not fit the backbone.
        RuntimeError: training changed the backbone.
    """
    _can_be_published(plan)
    _prepare_folder(plan)
    if len(plan.train) == 0:
        raise NoUsableData("the training data has no usable pair of a video and a summary")
    backbone = load(plan.backbone, plan.config, store=plan.store)
    mark = recognition_mark(backbone, plan)
    job, method = make_job(backbone, plan)
    if plan.resume and not job.resume():
        raise RunExists(f"{plan.folder} holds no checkpoint to resume from: start without --resume")
    frozen = weights_sha256(backbone.model)
    share = job.trainable / sum(p.numel() for p in backbone.model.parameters())
    tell(f"{job.trainable:,} of the numbers are trained, {share:.2%} of the backbone's")
    if plan.resume:
        tell(f"going on after step {job.place.step} of {job.steps}")
    outcome = run_with_bar(job, plan.about.domain)
    if weights_sha256(backbone.model) != frozen:
        raise RuntimeError("training changed the backbone's weights")
    if not job.accelerator.is_main_process:
        return None, outcome
    with writing(f"the adapter in {plan.roots[-1]}", job.checkpoints.newest()):
        entry = publish_adapter(
            AdapterRegistry(list(plan.roots)),
            plan.roots[-1],
            backbone,
            plan.about,
            plan.config,
            method.export(),
            outcome,
            mark,
        )
    shutil.rmtree(job.checkpoints.folder, ignore_errors=True)
    return entry, outcome


def load(ref: str, config: TrainConfig, *, store: Path | None = None) -> Backbone:
    """The frozen backbone on its device; on the CPU in float32 until the run itself begins.

    Raises:
        InvalidConfig: it is to be on a GPU and there is none.
    """
    machine = config.machine
    if machine.device == "cuda" and not torch.cuda.is_available():
        raise InvalidConfig("machine.device is 'cuda', and there is no GPU here that torch can use")
    if machine.threads:
        torch.set_num_threads(machine.threads)
    on_cpu = machine.device == "cpu" or (machine.device == "auto" and not torch.cuda.is_available())
    dtype = torch.float32 if on_cpu or machine.precision == "fp32" else torch.bfloat16
    own = os.environ.get("LOCAL_RANK")  # as `accelerate launch` numbers a machine's processes
    device = f"cuda:{own}" if own is not None and not on_cpu else machine.device
    return load_backbone(ref, store=store, device=device, dtype=dtype)


def make_job(backbone: Backbone, plan: Plan) -> tuple[TrainingJob, Milora]:
    """The training of fresh experts on this backbone.

    Raises:
        InvalidConfig: a target matches no module, or one that experts cannot be put on.
    """
    config = plan.config
    if config.machine.precision == "bf16":
        backbone.model.to(torch.bfloat16)
    forward = choose_forward(backbone, config, plan.train, plan.validation)
    try:
        method = Milora(backbone.model, config)
    except (ConfigError, UnsupportedLayer) as error:
        raise InvalidConfig(str(error)) from error
    if config.machine.gradient_checkpointing and isinstance(forward, StockPass):
        backbone.model.activation_checkpointing_enable({"use_reentrant": False})
        backbone.model.train()  # transformers checkpoints in this mode only
    job = TrainingJob(
        backbone.model,
        method,
        forward,
        config,
        train=plan.train,
        validation=plan.validation,
        folder=plan.folder,
        instruction=backbone.manifest.prompt,
        origin={"backbone": backbone.fingerprint, "domain": plan.about.domain},
    )
    return job, method


def choose_forward(
    backbone: Backbone, config: TrainConfig, train: Samples, validation: Samples | None = None
) -> ForwardPass:
    """The fast pass where the backbone and all frames are of the demo's size, else the stock one.

    Raises:
        InvalidConfig: the fast pass is asked for and does not fit.
    """
    wanted = config.machine.forward
    fits = wanted != "stock" and all(fits_fast(backbone, sample) for sample in _looked_at(train, validation))
    if wanted == "fast" and not fits:
        raise InvalidConfig(
            "machine.forward = 'fast' is for the demo backbone and its frames on the CPU; take 'auto' or 'stock'"
        )
    if fits and not config.machine.gradient_checkpointing:
        return FastPass(backbone.model, backbone.processor.tokenizer)
    return StockPass(backbone.model, backbone.processor)


def _looked_at(train: Samples, validation: Samples | None) -> Iterator[VideoSample]:
    """Of clips that are drawn one, all are of its size; of videos every one."""
    if train.frame_counts is not None:
        yield train[0]
        return
    for samples in (train, validation or ()):
        yield from (samples[index] for index in range(len(samples)))


def recognition_mark(backbone: Backbone, plan: Plan) -> dict[str, Tensor] | None:
    """By which `auto` will know the domain's videos; None with too few of them."""
    count = min(plan.config.watch.mark_clips, len(plan.train))
    if count < 2:
        return None
    forward = choose_forward(backbone, plan.config, plan.train, plan.validation)
    pairs = (Pair.of(plan.train[index], backbone.manifest.prompt) for index in range(count))
    return gaussian(torch.stack([forward.features(pair).cpu() for pair in pairs]))


def run_with_bar(job: TrainingJob, label: str) -> Outcome:
    """The training with a bar on stderr."""
    with Progress(
        TextColumn(label),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("loss {task.fields[loss]:.3f}"),
        console=Console(stderr=True),
        disable=not job.accelerator.is_main_process,
    ) as bar:
        task = bar.add_task(label, total=job.steps, completed=job.place.step, loss=float("nan"))
        return job.run_to_end(lambda step, steps, loss: bar.update(task, completed=step, loss=loss))


def _can_be_published(plan: Plan) -> None:
    """What would stop the publishing is known before the training.

    Raises:
        InvalidConfig: the domain's name is none.
        WriteFailed: the folder of adapters cannot be written to.
    """
    if not DOMAIN_NAME.match(plan.about.domain):
        raise InvalidConfig(f"{plan.about.domain[:80]!r} is no domain: {DOMAIN_RULE}")
    root = plan.roots[-1]
    with writing(f"the folder of adapters {root}", None):
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=root):
            pass


def _prepare_folder(plan: Plan) -> None:
    checkpoints = plan.folder / "checkpoints"
    if plan.fresh:
        shutil.rmtree(checkpoints, ignore_errors=True)
    elif not plan.resume and any(checkpoints.glob("step-*")):
        raise RunExists(
            f"{plan.folder} holds an unfinished run: go on with --resume, or start again with --fresh"
        )
