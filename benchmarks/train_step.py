"""What a training step of experts costs on a model of VideoLLaMA3-2B's shape with random weights, in time and memory.

    python -m benchmarks.train_step --out docs/results/train-step.json

bfloat16 with activation checkpointing, experts in float32, AdamW. A frame is 28 x 28 patches of 14 pixels, merged two
by two to 196 tokens. On a GPU the memory is what torch allocated at most, on a CPU the process's.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.random_model import SMALL, TWO_B, Shape, random_backbone
from milora import frobenius
from model_store.backbone import Backbone, load_backbone
from training.trainer.config import TrainConfig
from training.trainer.method import Milora
from training.trainer.stock import StockBatch, StockPass

SHAPES = {"2b": TWO_B, "0.3b": SMALL}
LIMIT_GIB = 24
_MERGE = 2


def random_batch(backbone: Backbone, *, videos: int, frames: int, side: int, answer: int) -> StockBatch:
    """Videos of noise, ``side`` x ``side`` patches a frame, with a prompt of words and an answer after them."""
    config, generator = backbone.model.config, torch.Generator().manual_seed(0)
    patch = config.vision_config.patch_size
    tokens = frames * side * side // _MERGE**2
    words = torch.randint(100, 1000, (videos, 32 + answer), generator=generator)
    video = torch.full((videos, tokens), config.video_token_id)
    ids = torch.cat([video, words], 1)
    labels = torch.full_like(ids, -100)
    labels[:, -answer:] = ids[:, -answer:]
    inputs = {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "labels": labels,
        "pixel_values_videos": torch.randn(videos * frames * side * side, 3 * patch**2, generator=generator),
        "video_grid_thw": torch.tensor([[frames, side, side]] * videos),
        "video_merge_sizes": torch.tensor([_MERGE] * videos),
    }
    prompt_mask = torch.ones_like(ids, dtype=torch.bool)
    prompt_mask[:, -answer:] = False
    return StockBatch(inputs, prompt_mask)


def measure_step(
    backbone: Backbone, config: TrainConfig, batch: StockBatch, *, steps: int = 3
) -> dict[str, Any]:
    """Seconds a step (the fastest, after a first one that is not counted), peak memory, and what is trained."""
    model = backbone.model
    method = Milora(model, config)
    model.activation_checkpointing_enable({"use_reentrant": False})
    model.train()
    forward = StockPass(model, backbone.processor)
    on_gpu = model.device.type == "cuda"
    groups = method.parameter_groups(config)
    optimizer = torch.optim.AdamW(
        [{"params": g["params"], "lr": g["peak"]} for g in groups], betas=(0.9, 0.98), weight_decay=0.0
    )
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    seconds, losses = [], []
    for _ in range(steps + 1):
        started = time.perf_counter()
        with method.training(forward.rows(batch)):
            loss = forward.loss(batch, None) + config.loss.frobenius * frobenius(method.handle)
            loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(loss.item())  # waits for the device
        seconds.append(time.perf_counter() - started)
    peak = (
        torch.cuda.max_memory_allocated()
        if on_gpu
        else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    )
    trained = sum(p.numel() for p in method.module.parameters() if p.requires_grad)
    frozen = sum(p.numel() for p in model.parameters())
    return {
        "model": backbone.name,
        "parameters": frozen,
        "trainable": trained,
        "trainable_share": round(trained / frozen, 5),
        "videos": len(batch.prompt_mask),
        "tokens_a_video": batch.inputs["input_ids"].shape[1],
        "step_s": round(min(seconds[1:]), 3),
        "peak_gib": round(peak / 2**30, 2),
        "limit_gib": LIMIT_GIB,
        "within": peak <= LIMIT_GIB * 2**30,
        "losses": [round(loss, 4) for loss in losses],
        "device": torch.cuda.get_device_name() if on_gpu else "CPU",
        "torch": torch.__version__,
    }


def random_of(shape: Shape, device: str) -> Backbone:
    """A model of this shape beside the demo's processor."""
    return random_backbone(load_backbone("visum-demo", device="cpu"), shape, torch.bfloat16, device=device)


def main() -> int:
    """Parse the command line, measure, print and keep; 1 where the step took more memory than it may."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.train_step", description=__doc__)
    parser.add_argument("--shape", choices=SHAPES, default="2b")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--videos", type=int, default=1)
    parser.add_argument("--frames", type=int, default=32)
    parser.add_argument("--side", type=int, default=28, help="patches along a frame's edge")
    parser.add_argument("--answer", type=int, default=128, help="tokens of the summary")
    parser.add_argument("--steps", type=int, default=3, help="that are counted; on a CPU one takes minutes")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    backbone = random_of(SHAPES[arguments.shape], arguments.device)
    batch = random_batch(
        backbone,
        videos=arguments.videos,
        frames=arguments.frames,
        side=arguments.side,
        answer=arguments.answer,
    )
    measured = measure_step(backbone, TrainConfig(), batch, steps=arguments.steps)
    text = json.dumps(measured, indent=1)
    print(text)
    if arguments.out is not None:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(text + "\n")
    return 0 if measured["within"] else 1


if __name__ == "__main__":
    sys.exit(main())
