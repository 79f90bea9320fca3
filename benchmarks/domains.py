"""A batch over many domains, a batch of one, the frozen backbone, and peft's mixed batch: all on the same model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from benchmarks.apart import apart
from benchmarks.case import Case, demo_case, random_case
from benchmarks.engine_arm import (
    DECODE,
    PREFILL,
    WHOLE,
    Ask,
    Running,
    alone,
    in_any_order,
    lopsided,
    one_slot,
    together,
)
from benchmarks.goals import FROZEN, MIXED, MIXED_PEFT, missed
from benchmarks.peft_arm import MixedBatch
from benchmarks.plan import Plan
from benchmarks.random_model import SMALL, Shape
from benchmarks.report import Breakdown, Comparison, Row
from benchmarks.side_by_side import Arm, Figures, Metric, take_turns
from benchmarks.step_profile import profiled
from benchmarks.subject import Subject

WARM_UP_TOKENS = 8
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
        (partial(demo_case, subject, plan), plan.fixed_tokens, plan.batch_rounds),
        (partial(random_case, subject, plan, shape, torch.float32), plan.random_tokens, plan.random_rounds),
        (partial(random_case, subject, plan, shape, torch.bfloat16), plan.random_tokens, plan.random_rounds),
    ]
    found = [
        compare(make, subject.scratch / f"domains-{number}", tokens, rounds, also_uneven=number == 0)
        for number, (make, tokens, rounds) in enumerate(ways)
    ]
    return Comparison(
        key="domains",
        title="Several domains in one batch",
        how=f"The same {plan.in_flight} videos and {plan.fixed_tokens} new tokens each ({plan.random_tokens} on the "
        f"random model, whose prompts have {plan.random_frames} frames), the stop token switched off. Mixed: every "
        "video has a domain of its own, in a slot that is drawn anew for every round. One domain: the domains in "
        "turns. The frozen backbone runs in an engine without any experts. peft: `generate` with `adapter_names` on "
        "LoRAs of rank K·r = 32 on the language model's attention, in the backbone's precision; its vision tower has "
        "none. Both engines and peft have a process of their own.",
        rows=tuple(row for part in found for row in part.rows),
        breakdowns=tuple(profile for part in found for profile in part.profiles),
        notes=tuple(part.note for part in found),
    )


def compare(
    make: Callable[[], Case], folder: Path, tokens: int, rounds: int, *, also_uneven: bool = False
) -> Found:
    """One model's arms in turns, each engine and peft in a process of its own. `make` has to be picklable.

    `also_uneven` adds a batch in which one domain has all rows but one.
    """
    endless = partial(_endless, make)
    with (
        apart(alone, endless) as on,
        apart(alone, endless, experts=False) as bare,
        apart(_peft, endless, folder) as peft,
    ):
        for arm in (on, bare, peft):
            arm.made()
        name, kinds, count, domains = on(_about)
        mixed, one = f"{count} over {domains} domains", ONE
        uneven = f"{count - 1} of the first slot's domain, 1 of the last's"
        cache = peft(_choose_cache)

        def so_many(number: int) -> int:
            return tokens if number >= 0 else WARM_UP_TOKENS

        arms: dict[str, Arm] = {
            BACKBONE: lambda number: bare(_one_slot, None, so_many(number)),
            one: lambda number: on(_one_slot, number, so_many(number)),
            mixed: lambda number: on(_mixed, number, so_many(number)),
            PEFT: lambda number: peft(_generate, so_many(number)),
        }
        if also_uneven:
            arms[uneven] = lambda number: on(_lopsided, so_many(number))
        samples = take_turns(arms, rounds=rounds)
        pairs = [(mixed, one, MIXED), (mixed, PEFT, MIXED_PEFT), (one, BACKBONE, FROZEN)]

        def row(ours: str, theirs: str, goal: str, metric: Metric) -> Row:
            goals = {DECODE: goal, WHOLE: goal if goal != FROZEN else None}
            key = goals.get(metric) and f"{goal}, {kinds[goal]}"
            return samples.row(ours, theirs, metric, model=name, goal=key)

        rows = [row(*pair, metric) for pair in pairs for metric in (DECODE, WHOLE, PREFILL)]
        if also_uneven:
            rows.append(samples.row(uneven, one, DECODE, model=name))
        profiles = []
        if any(missed(found) for found in rows):
            profiles = [
                on(_profiled_mixed, f"{name}: a decode step, {mixed}"),
                on(_profiled_one_slot, 0, f"{name}: a decode step, {one}"),
                bare(_profiled_one_slot, None, f"{name}: a decode step, {BACKBONE}"),
            ]
    return Found(rows, profiles, f"{name}: peft was given the {cache} cache, the faster of its two.")


def _endless(make: Callable[[], Case]) -> Case:
    return make().endless()


@contextmanager
def _peft(make: Callable[[], Case], folder: Path) -> Iterator[MixedBatch]:
    yield MixedBatch(make(), folder)


def _choose_cache(peft: MixedBatch) -> str:
    peft.choose_cache()
    return peft.cache


def _generate(peft: MixedBatch, tokens: int) -> Figures:
    return peft.generate(tokens)[1]


def _about(on: Running) -> tuple[str, dict[str, str], int, int]:
    """The model's name, which of each goal's kinds it is held to, how many videos and domains."""
    case = on.case
    kinds = {goal: _kind(goal, case) for goal in (MIXED, MIXED_PEFT, FROZEN)}
    return case.name, kinds, len(case.clips), len({clip.domain for clip in case.clips})


def _mixed(on: Running, turn: int, tokens: int) -> Figures:
    return together(on, in_any_order(on, turn), tokens).figures()


def _lopsided(on: Running, tokens: int) -> Figures:
    return together(on, lopsided(on), tokens).figures()


def _one_slot(on: Running, turn: int | None, tokens: int) -> Figures:
    return together(on, _asks(on, turn), tokens).figures()


def _profiled_mixed(on: Running, title: str) -> Breakdown:
    return profiled(on, in_any_order(on, 0), title)


def _profiled_one_slot(on: Running, turn: int | None, title: str) -> Breakdown:
    return profiled(on, _asks(on, turn), title)


def _asks(on: Running, turn: int | None) -> list[Ask]:
    """All clips to the domain whose turn it is, or to none."""
    slots = list(on.slots.values())
    return one_slot(on, 0 if turn is None else slots[turn % len(slots)])


def _kind(goal: str, case: Case) -> str:
    """The goals of a mixed batch are for 0.3 B: on the demo it is only measured."""
    return "demo" if goal == MIXED and case.name.startswith("demo") else device_or_precision(case)


def device_or_precision(case: Case) -> str:
    """What the goals depend on: fp32 or bf16 on the CPU, or a GPU."""
    return "gpu" if case.backbone.device.type == "cuda" else case.precision
