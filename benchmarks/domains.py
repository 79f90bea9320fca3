"""A batch over many domains, a batch of one, the frozen backbone, and peft's mixed batch: all on the same model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from benchmarks.case import Case, demo_case, random_case
from benchmarks.engine_arm import (
    DECODE,
    PREFILL,
    WHOLE,
    Ask,
    Running,
    one_slot,
    own_domains,
    running,
    together,
)
from benchmarks.goals import FROZEN, MIXED, MIXED_PEFT, missed
from benchmarks.peft_arm import MixedBatch
from benchmarks.plan import Plan
from benchmarks.random_model import SMALL, Shape
from benchmarks.report import Breakdown, Comparison, Row
from benchmarks.side_by_side import Figures, Metric, take_turns
from benchmarks.step_profile import profiled
from benchmarks.subject import Subject

ONE, BACKBONE, PEFT = "one domain", "frozen backbone, nothing beside it", "peft `adapter_names`"


@dataclass(frozen=True)
class Found:
    """What one model gave."""

    rows: list[Row]
    profiles: list[Breakdown]
    note: str


def domains(subject: Subject, plan: Plan, shape: Shape = SMALL) -> Comparison:
    """The demo in fp32, and the random model in fp32 and bf16, one after the other."""
    ways: list[tuple[Callable[[], Case], int, int]] = [
        (lambda: demo_case(subject, plan), plan.fixed_tokens, plan.batch_rounds),
        (lambda: random_case(subject, plan, shape, torch.float32), plan.random_tokens, plan.random_rounds),
        (lambda: random_case(subject, plan, shape, torch.bfloat16), plan.random_tokens, plan.random_rounds),
    ]
    found = []
    for number, (make, tokens, rounds) in enumerate(ways):
        found.append(compare(make().endless(), subject, f"domains-{number}", tokens, rounds))
    return Comparison(
        key="domains",
        title="Several domains in one batch",
        how=f"The same {plan.in_flight} videos and {plan.fixed_tokens} new tokens each ({plan.random_tokens} on the "
        f"random model, whose prompts have {plan.random_frames} frames), the stop token switched off. Mixed: every "
        "video has a domain of its own. One domain: the domains in turns. The frozen backbone runs in an engine "
        "without any experts. peft: `generate` with `adapter_names` on LoRAs of rank K·r = 32 on the language "
        "model's attention, in the backbone's precision; its vision tower has none.",
        rows=tuple(row for part in found for row in part.rows),
        breakdowns=tuple(profile for part in found for profile in part.profiles),
        notes=tuple(part.note for part in found),
    )


def compare(case: Case, subject: Subject, folder: str, tokens: int, rounds: int) -> Found:
    """One model's arms in turns."""
    count = len(case.clips)
    mixed, one = f"{count} over {len({clip.domain for clip in case.clips})} domains", ONE
    peft = MixedBatch(case, subject.scratch / folder)
    with running(case) as on, running(case, experts=False) as bare:
        slots = list(on.slots.values())

        def fixed(where: Running, asks: list[Ask]) -> Figures:
            return together(where, asks, tokens).figures()

        arms = {
            BACKBONE: lambda _: fixed(bare, one_slot(bare, 0)),
            one: lambda number: fixed(on, one_slot(on, slots[number % len(slots)])),
            mixed: lambda _: fixed(on, own_domains(on)),
            PEFT: lambda _: peft.generate(tokens)[1],
        }
        peft.choose_cache()
        samples = take_turns(arms, rounds=rounds)
        pairs = [(mixed, one, MIXED), (mixed, PEFT, MIXED_PEFT), (one, BACKBONE, FROZEN)]

        def row(ours: str, theirs: str, goal: str, metric: Metric) -> Row:
            goals = {DECODE: goal, WHOLE: goal if goal != FROZEN else None}
            key = goals.get(metric) and f"{goal}, {_kind(goal, case)}"
            return samples.row(ours, theirs, metric, model=case.name, goal=key)

        rows = [row(*pair, metric) for pair in pairs for metric in (DECODE, WHOLE, PREFILL)]
        profiles = []
        if any(missed(found) for found in rows):
            profiles += [profiled(on, own_domains(on), f"{case.name}: a decode step, {mixed}")]
            profiles += [profiled(on, one_slot(on, slots[0]), f"{case.name}: a decode step, {one}")]
            profiles += [profiled(bare, one_slot(bare, 0), f"{case.name}: a decode step, {BACKBONE}")]
    return Found(
        rows, profiles, f"{case.name}: peft was given the {peft.cache} cache, the faster of its two."
    )


def _kind(goal: str, case: Case) -> str:
    """The goals of a mixed batch are for 0.3 B: on the demo it is only measured."""
    return "demo" if goal == MIXED and case.name.startswith("demo") else device_or_precision(case)


def device_or_precision(case: Case) -> str:
    """What the goals depend on: fp32 or bf16 on the CPU, or a GPU."""
    return "gpu" if case.backbone.device.type == "cuda" else case.precision
