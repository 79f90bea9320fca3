"""A training in a process of its own, to be killed: ``python -m tests.training.trainer_process BACKBONE RUN [resume]``.

It prints every step that is done and leaves what it learned in ``final.safetensors``; where several processes share the
run, the second in ``final-1.safetensors``.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from model_store.backbone import load_backbone
from training.trainer.config import TrainConfig, load_config
from training.trainer.job import TrainingJob
from training.trainer.method import Milora
from training.trainer.samples import VideoSample
from training.trainer.stock import StockPass

STEPS = 14


class RandomSamples:
    """Videos of noise and sentences of numbers, the same each time."""

    def __init__(self, count: int) -> None:
        self._count = count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> VideoSample:
        rng = np.random.default_rng(index)
        frames = rng.integers(0, 255, (2 + index % 3, 32, 32, 3), dtype=np.uint8)
        return VideoSample(f"v{index}", frames, [float(t) for t in range(len(frames))], (f"Video {index}.",))

    @property
    def names(self) -> list[str]:
        return [f"v{index}" for index in range(self._count)]

    @property
    def contents(self) -> list[str]:
        return self.names

    @property
    def frame_counts(self) -> None:
        return None


def config(**changes) -> TrainConfig:
    """A few steps that exercise whatever is random: dropout, order, accumulation."""
    small = {
        "temporal": {"experts": 2, "rank": 2, "dropout": 0.2},
        "spatial": {"experts": 2, "rank": 2, "dropout": 0.2},
        "schedule": {"batch_size": 2, "accumulation": 2, "max_steps": STEPS, "warmup_steps": 2},
        "watch": {"calibration_clips": 4, "validation_clips": 0, "checkpoint_every": 3, "frozen": False,
                  "answer_tokens": 4},
        "machine": {"precision": "fp32", "device": "cpu", "threads": 1, "tensorboard": False},
    }  # fmt: skip
    return load_config(None, **{**small, **changes})


def make_job(backbone: Path, run: Path, settings: TrainConfig, **samples) -> TrainingJob:
    """Fresh experts beside the backbone of a folder."""
    torch.set_num_threads(1)
    loaded = load_backbone(backbone, device="cpu", dtype=torch.float32)
    return TrainingJob(
        loaded.model,
        Milora(loaded.model, settings),
        StockPass(loaded.model, loaded.processor),
        settings,
        train=samples.get("train", RandomSamples(11)),
        validation=samples.get("validation"),
        folder=run,
        instruction="Say.",
    )


def main() -> None:
    backbone, run = Path(sys.argv[1]), Path(sys.argv[2])
    job = make_job(backbone, run, config())
    if "resume" in sys.argv and not job.resume():
        raise SystemExit("there is no checkpoint")
    job.run_to_end(lambda step, steps, loss: print(step, flush=True))
    own = "" if job.accelerator.is_main_process else f"-{job.accelerator.process_index}"
    save_file(job.method.state(), run / f"final{own}.safetensors")


if __name__ == "__main__":
    main()
