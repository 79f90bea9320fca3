"""One run, start to end, in the process it is called in: train, measure, and say what it took."""

from __future__ import annotations

import platform
import resource
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from transformers.utils.logging import disable_progress_bar

from training.backbone.loading import load_trained
from training.experiments.baselines import PeftLora, PeftXLora
from training.experiments.spec import RunSpec
from training.experiments.xlora_pass import XLoraPass
from training.experts.recipe import world_config
from training.trainer.config import TrainConfig
from training.trainer.fast import FastPass
from training.trainer.job import TrainingJob
from training.trainer.method import Method, Milora
from training.trainer.passes import ForwardPass
from training.trainer.quality import answer, judge
from training.trainer.world_samples import WorldSamples

_ANSWER_TOKENS = 80  # of clips of seven frames, two events in most
_CURVE_POINTS = 40


def execute(spec: RunSpec, *, backbone: str, cache: Path, threads: int = 1) -> dict[str, Any]:
    """The result of one run as JSON. ``cache`` holds the clips, drawn once for all runs."""
    torch.set_num_threads(threads)
    disable_progress_bar()
    config = config_of(spec)
    measured = WorldSamples(
        spec.domain, spec.split, spec.measured_clips, max_frames=spec.max_frames, cache=cache
    )
    loaded = load_trained(backbone, spec.architecture)
    frozen_parameters = sum(parameter.numel() for parameter in loaded.model.parameters())
    model, tokenizer = loaded.model.to(torch.bfloat16), loaded.tokenizer
    method, forward = method_of(spec, model, tokenizer, config)
    result: dict[str, Any] = {
        "key": spec.key,
        "spec": asdict(spec),
        "backbone": loaded.manifest.fingerprint,
        "rank": getattr(method, "rank", None),
    }
    if method is None:
        forward, method = FastPass(model, tokenizer), _Frozen()
        trainable, curve, train_s, findings, alpha = 0, [], 0.0, {}, None
    else:
        train = WorldSamples(spec.domain, "train", spec.clips, max_frames=spec.max_frames, cache=cache)
        losses: list[float] = []
        with tempfile.TemporaryDirectory() as folder:
            job = TrainingJob(
                model, method, forward, config, train=train, validation=None, folder=Path(folder),
                instruction=loaded.manifest.prompt,
            )  # fmt: skip
            # Time of the processor, not of the clock: runs that share a machine with others cost the same.
            began = time.process_time()
            outcome = job.run_to_end(lambda step, steps, loss: losses.append(loss))
        trainable, train_s = outcome.trainable, time.process_time() - began
        every = max(1, len(losses) // _CURVE_POINTS)
        curve = [
            round(sum(losses[i : i + every]) / len(losses[i : i + every]), 4)
            for i in range(0, len(losses), every)
        ]
        findings = {finding.code: finding.seen for finding in outcome.findings}
        alpha = method.export().fusion_alpha if isinstance(method, Milora) else None
    started = time.monotonic()
    told = answer(
        forward, method, measured, loaded.manifest.prompt, clips=spec.measured_clips, limit=_ANSWER_TOKENS
    )
    return result | {
        "quality": judge(measured, told).as_json(),
        "trainable": trainable,
        "trainable_share": trainable / frozen_parameters,
        "train_s": round(train_s, 1),
        "cpu_s": round(time.process_time(), 1),
        "answer_s": round(time.monotonic() - started, 1),
        "peak_mib": round(peak_mib()),
        "loss": curve,
        "fusion_alpha": alpha,
        "findings": findings,
        "machine": f"{threads} CPU thread, {platform.machine()}, torch {torch.__version__}",
    }


def config_of(spec: RunSpec) -> TrainConfig:
    """The recipe with the run's sizes and settings."""
    return world_config(
        None,
        **{
            "seed": spec.seed,
            "instructions": ["Summarize the video."],
            "schedule.tokens_per_batch": 0,
            "schedule.batch_size": spec.batch_size,
            "schedule.warmup_steps": 10,
            "watch.calibration_clips": 64,
            "watch.validation_clips": 0,
            "watch.evaluate_every": 0,
            "watch.frozen": False,
            "watch.checkpoint_every": 10**9,
            "machine.tensorboard": False,
            **spec.settings,
        },
    )


def method_of(
    spec: RunSpec, model: torch.nn.Module, tokenizer, config: TrainConfig
) -> tuple[Method | None, ForwardPass | None]:
    """What the run trains, in place beside the model, and the pass that it needs."""
    match spec.method:
        case "frozen":
            return None, None
        case "milora":
            return Milora(model, config), FastPass(model, tokenizer)
        case "xlora":
            xlora = PeftXLora(model, config)
            return xlora, XLoraPass(model, tokenizer, xlora)
        case kind:
            return PeftLora(model, config, kind), FastPass(model, tokenizer)


class _Frozen:
    """Nothing at all beside the backbone."""

    name = "frozen"

    def __init__(self) -> None:
        self.module = torch.nn.Module()

    def decoding(self, rows):
        from contextlib import nullcontext

        return lambda step: nullcontext()


def peak_mib() -> float:
    """The most memory that this process has taken."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 if sys.platform == "linux" else 2**20)
