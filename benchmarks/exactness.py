"""Whether a request gets the same tokens whatever runs beside it, and how close the call was where it does not."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch

from benchmarks.case import Case, demo_case, random_case
from benchmarks.engine_arm import one_by_one, own_domains, running, together
from benchmarks.plan import Plan
from benchmarks.random_model import SMALL, Shape
from benchmarks.report import Breakdown, Comparison, Share
from benchmarks.spread import Spread
from benchmarks.subject import Subject
from workers.sampling import Chooser
from workers.sequence import Sequence as InFlight

BF16_MANTISSA_BITS = 7


class Watch:
    """Notes the two likeliest logits by prompt and place in the answer, and lets the engine choose as it does."""

    def __init__(self, chooser: Chooser) -> None:
        self.likeliest: dict[tuple[int, int], tuple[float, ...]] = {}
        self._choose = chooser.choose
        chooser.choose = self

    def __call__(self, sequences: Sequence[InFlight], first: int, logits: torch.Tensor) -> torch.Tensor:
        for sequence, row in zip(sequences, logits.float().topk(2).values.tolist(), strict=True):
            self.likeliest[id(sequence.request.prompt), len(sequence.generated)] = tuple(row)
        return self._choose(sequences, first, logits)


@dataclass(frozen=True)
class Difference:
    """Where two answers to one request part: after how many tokens, and how far the likeliest two were apart then, in
    steps of a bfloat16 number of that size."""

    tokens: int
    gap: float


def exactness(subject: Subject, plan: Plan, shape: Shape = SMALL) -> Comparison:
    """Eight requests over eight domains, together and one after the other."""
    cases = [
        demo_case(subject, plan),
        _in_bf16(demo_case(subject, plan)),
        random_case(subject, plan, shape, torch.bfloat16),
    ]
    return Comparison(
        key="exactness",
        title="The same tokens, whatever runs beside",
        how=f"{plan.in_flight} requests over as many domains, {plan.fixed_tokens} new tokens each, greedy, all at once "
        "and one after the other. Where an answer parts from the one that is given alone, the distance of the two "
        "likeliest logits at that token is given in steps of a bfloat16 number of their size.",
        breakdowns=tuple(_compared(case.endless(), plan.fixed_tokens) for case in cases),
    )


def _in_bf16(case: Case) -> Case:
    adapters = {domain: state.staged(torch.bfloat16, pinned=False) for domain, state in case.adapters.items()}
    backbone = replace(case.backbone, model=case.backbone.model.to(torch.bfloat16))
    return replace(case, name="demo, bf16", backbone=backbone, adapters=adapters)


def _compared(case: Case, tokens: int) -> Breakdown:
    with running(case) as on:
        watch = Watch(on.engine._rows.chooser)
        asks = own_domains(on)
        alone = [answer.token_ids for answer in one_by_one(on, asks, tokens).answers]
        calls = dict(watch.likeliest)
        beside = [answer.token_ids for answer in together(on, asks, tokens).answers]
    parted = [
        difference(one, other, lambda place, ask=ask: calls[id(ask.clip.prompt), place])
        for ask, one, other in zip(asks, alone, beside, strict=True)
        if one != other
    ]
    shares = [
        Share(
            name=f"answers of {len(asks)} that are the same",
            unit="",
            value=Spread.of([len(asks) - len(parted)]),
        )
    ]
    if parted:
        shares.append(
            Share(name="the others part after", unit="tokens", value=Spread.of(d.tokens for d in parted))
        )
        shares.append(Share(name="distance there", unit="bf16 steps", value=Spread.of(d.gap for d in parted)))
    return Breakdown(title=case.name, shares=tuple(shares))


def difference(
    one: Sequence[int], other: Sequence[int], likeliest: Callable[[int], tuple[float, float]]
) -> Difference:
    """Where two different answers part; `likeliest(place)` gives the two largest logits that one of them chose by."""
    place = next(i for i, (a, b) in enumerate(zip(one, other, strict=True)) if a != b)
    first, second = likeliest(place)
    step = 2.0 ** (math.floor(math.log2(max(abs(first), 1e-30))) - BF16_MANTISSA_BITS)
    return Difference(place, (first - second) / step)
