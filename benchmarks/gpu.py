"""VideoLLaMA3-2B and -7B shapes on a GPU, with random weights in bf16, beside what the GPU can do at most.

Runs only where there is a GPU. On the machine of the kept run there was none: its tables hold nothing of this.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import cycle, islice
from statistics import median

import torch

from benchmarks import exchange
from benchmarks.case import Case, Prompted, random_case
from benchmarks.domains import compare
from benchmarks.engine_arm import DECODE, PREFILL, own_domains, running, together
from benchmarks.plan import Plan
from benchmarks.random_model import SEVEN_B, TWO_B, Shape
from benchmarks.report import Breakdown, Comparison, Row, Share
from benchmarks.side_by_side import Figures
from benchmarks.spread import Spread
from benchmarks.step_profile import profiled
from benchmarks.subject import Subject
from workers.prompt import Prompt

BATCHES = (1, 8, 32)
FRAMES, GRID = 8, (16, 16)
"""Every video: frames of so many patches in height and width, merged two by two before the language model."""
MERGE, WORDS = 2, 32
COPY_BYTES, MATRIX = 2**31, 8192
REPEATS = 5


def gpu(
    subject: Subject,
    plan: Plan,
    shapes: Sequence[Shape] = (TWO_B, SEVEN_B),
    *,
    device: str = "cuda",
    batches: Sequence[int] = BATCHES,
    roof: Roof | None = None,
) -> Comparison:
    """Every shape: mixed against pure, frozen and peft at a batch of 8, exchange, and the shares of the hardware."""
    roof = roof or Roof.measured(device)
    rows: list[Row] = []
    parts: list[Breakdown] = [roof.described()]
    for shape in shapes:
        eight = partial(_eight, subject, plan, shape, device)
        found = compare(eight, subject.scratch / f"gpu-{shape.name}", plan.fixed_tokens, plan.batch_rounds)
        rows += found.rows
        parts += found.profiles
        case = eight().endless()
        swapped = exchange.compare(case, subject.scratch / f"gpu-exchange-{shape.name}", plan)
        rows += swapped[0]
        parts += swapped[1]
        for count in batches:
            parts += _shares(with_videos(case, count), roof, plan)
    return Comparison(
        key="gpu",
        title="On a GPU",
        how=f"Random weights of VideoLLaMA3's shapes in bf16, {plan.fixed_tokens} new tokens, 8 domains, prompts of "
        f"{FRAMES} frames. A decode step can be no faster than reading the language model's weights, the cache and "
        "the experts that it uses at the speed of a copy, and a prefill no faster than its matrix products at the "
        "speed of one large product.",
        rows=tuple(rows),
        breakdowns=tuple(parts),
    )


@dataclass(frozen=True)
class Roof:
    """What the device does at most: bytes a second in a copy (read and written), operations a second in a product."""

    bandwidth: float
    matrix_rate: float

    @classmethod
    def measured(cls, device: str, copy_bytes: int = COPY_BYTES, size: int = MATRIX) -> Roof:
        source = torch.empty(copy_bytes, dtype=torch.uint8, device=device)
        target = torch.empty_like(source)
        left = torch.randn(size, size, device=device, dtype=torch.bfloat16)
        copy_s = _seconds(lambda: target.copy_(source), device)
        product_s = _seconds(lambda: left @ left, device)
        return cls(2 * copy_bytes / copy_s, 2 * size**3 / product_s)

    def described(self) -> Breakdown:
        rates = [
            ("copying", "GB/s", self.bandwidth / 1e9),
            ("one bf16 product", "TFLOP/s", self.matrix_rate / 1e12),
        ]
        shares = tuple(Share(name=name, unit=unit, value=Spread.of([rate])) for name, unit, rate in rates)
        return Breakdown(title="the device at most", shares=shares)


def _eight(subject: Subject, plan: Plan, shape: Shape, device: str) -> Case:
    return with_videos(random_case(subject, plan, shape, torch.bfloat16, device=device), 8)


def with_videos(case: Case, count: int) -> Case:
    """The case with `count` random videos, the domains in turns."""
    prompts = (Prompted(domain, random_prompt(case)) for domain in islice(cycle(case.adapters), count))
    return replace(case, clips=tuple(prompts))


def random_prompt(case: Case, seed: int = 0) -> Prompt:
    """Noise where frames would be: what a token costs does not depend on what it shows."""
    config = case.backbone.model.config
    height, width = GRID
    patches, video_tokens = FRAMES * height * width, FRAMES * height * width // MERGE**2
    generator = torch.Generator().manual_seed(seed)
    words = torch.randint(10, 200, (WORDS,), generator=generator)
    video = torch.full((video_tokens,), config.video_token_id)
    return Prompt(
        input_ids=torch.cat([words[: WORDS // 2], video, words[WORDS // 2 :]]),
        pixel_values=torch.randn(patches, 3 * config.vision_config.patch_size**2, generator=generator),
        grid_thw=torch.tensor([[FRAMES, height, width]]),
        merge_sizes=torch.tensor([MERGE]),
        compression_mask=torch.ones(video_tokens, dtype=torch.bool),
        video_tokens=video_tokens,
    )


def step_bytes(case: Case, length: int) -> int:
    """What one decode step has to read at the least: weights, the cache of `length` positions a video, experts."""
    model, text = case.backbone.model, case.backbone.model.config.text_config
    width = case.backbone.dtype.itemsize
    weights = sum(p.numel() for p in model.model.language_model.layers.parameters())
    weights += model.get_output_embeddings().weight.numel()
    head = text.hidden_size // text.num_attention_heads
    cached = 2 * len(case.clips) * length * text.num_hidden_layers * text.num_key_value_heads * head
    used = {clip.domain for clip in case.clips}
    experts = sum(
        layer.A.numel() + layer.B.numel()
        for domain in used
        for name, layer in case.adapters[domain].layers.items()
        if "language_model" in name
    )
    return width * (weights + cached + experts)


def prefill_operations(case: Case) -> int:
    """Two for every weight and token, in the vision tower for every patch; attention's own products left out."""
    model = case.backbone.model.model
    tokens = sum(clip.prompt.tokens for clip in case.clips)
    patches = sum(clip.prompt.patches for clip in case.clips)
    language = sum(p.numel() for p in model.language_model.layers.parameters())
    return 2 * (language * tokens + sum(p.numel() for p in model.vision_model.parameters()) * patches)


def _shares(case: Case, roof: Roof, plan: Plan) -> list[Breakdown]:
    """Speed at one batch size as shares of what the device can do, and the kernels that take the time."""
    count, tokens = len(case.clips), plan.fixed_tokens
    with running(case) as on:
        asks = own_domains(on)
        figures: list[Figures] = [together(on, asks, tokens).figures() for _ in range(REPEATS + 1)][1:]
        kernels = profiled(on, asks, f"{case.name}: a decode step of {count}, mixed domains")
    length = case.clips[0].prompt.tokens + tokens // 2
    limit = count * roof.bandwidth / step_bytes(case, length)
    fastest_ms = 1000 * prefill_operations(case) / roof.matrix_rate
    shares = [
        ("decode, mixed domains", "tokens/s", [found[DECODE] for found in figures]),
        ("of what reading at a copy's speed allows", "%", [100 * found[DECODE] / limit for found in figures]),
        ("prefill", "ms", [found[PREFILL] for found in figures]),
        ("of the speed of one large product", "%", [100 * fastest_ms / found[PREFILL] for found in figures]),
    ]
    named = tuple(Share(name=name, unit=unit, value=Spread.of(values)) for name, unit, values in shares)
    return [Breakdown(title=f"{case.name}: {count} in flight", shares=named), kernels]


def _seconds(work: Callable[[], object], device: str) -> float:
    """The median of some runs after one to warm up."""
    found = []
    for _ in range(REPEATS + 1):
        _wait(device)
        began = time.perf_counter()
        work()
        _wait(device)
        found.append(time.perf_counter() - began)
    return median(found[1:])


def _wait(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize()
