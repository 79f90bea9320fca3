"""More domains than slots: what going round a hundred of them costs beside eight that stay."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import cycle, islice

from benchmarks.case import Case, demo_case
from benchmarks.engine_arm import Running, running
from benchmarks.goals import ROTATION
from benchmarks.plan import Plan
from benchmarks.random_model import random_adapter
from benchmarks.report import Comparison
from benchmarks.side_by_side import Figures, Metric, take_turns
from benchmarks.subject import Subject
from workers.request import EngineRequest

RATE = Metric("answers", "tokens/s")
SLOTS = 8
SHORTEST, SPAN = 16, 24
"""Answers have 16 to 39 tokens, so that requests end and join between each other's steps."""


def rotation(subject: Subject, plan: Plan) -> Comparison:
    """The demo model and random adapters in host memory; as many requests in flight as there are slots."""
    case = demo_case(subject, plan).endless()
    case = replace(case, adapters=_many(case, plan.rotation_domains))
    every, few = list(case.adapters), list(case.adapters)[:SLOTS]
    many, eight = f"{len(every)} domains in rotation", f"{len(few)} domains"
    with running(case, slots=SLOTS) as on:
        for domain in on.slots:  # requests bring their own pins
            on.bank.release(domain)

        def arm(domains: Sequence[str]) -> Figures:
            if len(domains) <= SLOTS:  # the other arm has evicted them; that is not theirs to pay
                _answer(on, case, domains, len(domains))
            return {RATE: _answer(on, case, domains, plan.rotation_requests)}

        samples = take_turns(
            {eight: lambda _: arm(few), many: lambda _: arm(every)}, rounds=plan.rotation_rounds
        )
    return Comparison(
        key="rotation",
        title="A hundred domains in eight slots",
        how=f"{plan.rotation_requests} requests of {SHORTEST} to {SHORTEST + SPAN - 1} new tokens a round, "
        f"{SLOTS} in flight, each for the next domain in turn; {SLOTS} slots. As in the worker, a request pins its "
        "adapter, which comes from host memory where it is not resident, and lets go of it when it is answered.",
        rows=(samples.row(many, eight, RATE, model=case.name, goal=ROTATION),),
    )


def _many(case: Case, count: int) -> dict:
    """`count` random adapters, laid out as the worker keeps them."""
    return {
        f"domain-{seed}": random_adapter(case.backbone, case.room, seed).staged(
            case.backbone.dtype, pinned=case.backbone.device.type == "cuda"
        )
        for seed in range(1, count + 1)
    }


def _answer(on: Running, case: Case, domains: Sequence[str], requests: int) -> float:
    """Tokens a second over `requests` requests, from the first one's begin to the last one's end."""
    assert on.bank is not None
    bank = on.bank

    def one(number: int, domain: str) -> int:
        prompt = on.clips[number % len(on.clips)].prompt
        tokens = SHORTEST + 7 * number % SPAN
        with bank.pinned(domain, lambda: case.adapters[domain]) as slot:
            return on.engine.submit(EngineRequest(prompt, tokens, slot=slot)).result().completion_tokens

    began = time.perf_counter()
    with ThreadPoolExecutor(SLOTS) as clients:
        tokens = sum(clients.map(one, range(requests), islice(cycle(domains), requests)))
    return tokens / (time.perf_counter() - began)
