"""The engine: requests together and apart, domains mixed and alike, with experts and without."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass

from benchmarks.plan import Plan
from benchmarks.report import Comparison
from benchmarks.side_by_side import Arm, Figures, Metric, take_turns
from benchmarks.subject import Prompted, RunningEngine, Subject, running_engine
from workers.request import EngineAnswer, EngineRequest

WHOLE = Metric("whole answers", "tokens/s")
DECODE = Metric("decode steps alone", "tokens/s")
PREFILL = Metric("prefill", "ms", higher_is_better=False)


@dataclass(frozen=True)
class Ask:
    """One request to come: a clip, and the slot of the adapter that answers, 0 for none."""

    clip: Prompted
    slot: int


@dataclass(frozen=True)
class Round:
    """The answers to some asks, in their order, and the seconds until the last was there."""

    answers: list[EngineAnswer]
    seconds: float

    @property
    def tokens_per_second(self) -> float:
        return sum(answer.completion_tokens for answer in self.answers) / self.seconds

    @property
    def texts(self) -> list[str]:
        return [answer.text for answer in self.answers]

    def figures(self) -> Figures:
        """Of requests that were prefilled together and all have the same number of tokens."""
        steps = sum(
            answer.completion_tokens - 1 for answer in self.answers
        )  # the first token is the prefill's
        return {
            WHOLE: self.tokens_per_second,
            DECODE: steps / max(answer.generate_s for answer in self.answers),
            PREFILL: 1000 * max(answer.prefill_s for answer in self.answers),
        }


Way = Callable[[RunningEngine, Sequence[Ask], int], Round]


def together(on: RunningEngine, asks: Sequence[Ask], tokens: int) -> Round:
    """All at once. They are submitted between two steps, so that one prefill takes all."""
    requests = [EngineRequest(ask.clip.prompt, tokens, slot=ask.slot) for ask in asks]
    began = time.perf_counter()
    futures: list[Future[EngineAnswer]] = on.engine.submit_all(requests)
    answers = [future.result() for future in futures]
    return Round(answers, time.perf_counter() - began)


def one_by_one(on: RunningEngine, asks: Sequence[Ask], tokens: int) -> Round:
    """Each is submitted when the one before is answered."""
    requests = [EngineRequest(ask.clip.prompt, tokens, slot=ask.slot) for ask in asks]
    began = time.perf_counter()
    answers = [on.engine.submit(request).result() for request in requests]
    return Round(answers, time.perf_counter() - began)


def batching(subject: Subject, plan: Plan) -> Comparison:
    """A full batch against one request after another."""
    with running_engine(subject, plan.in_flight) as on:
        asks = [Ask(clip, on.slots[clip.domain]) for clip in on.clips]
        alone, batch = "one after another", f"{len(asks)} in flight"
        last: dict[str, Round] = {}

        def arm(name: str, way: Way) -> Arm:
            def run(_: int) -> Figures:
                last[name] = way(on, asks, on.max_new_tokens)
                return {WHOLE: last[name].tokens_per_second}

            return run

        arms = {alone: arm(alone, one_by_one), batch: arm(batch, together)}
        samples = take_turns(arms, rounds=plan.answer_rounds)
    same = sum(a == b for a, b in zip(last[alone].texts, last[batch].texts, strict=True))
    return Comparison(
        key="batching",
        title="A batch against one request after another",
        how=f"{len(asks)} clips over {len(on.slots)} domains, each answered to its end by its own domain's experts.",
        rows=(samples.row(batch, alone, WHOLE),),
        notes=(f"Both ways gave the same answer to {same} of the {len(asks)} clips.",),
    )


def mixing(subject: Subject, plan: Plan) -> Comparison:
    """A batch over all domains against the same batch on one."""
    with running_engine(subject, plan.in_flight, endless=True) as on:
        slots = list(on.slots.values())

        def mixed(_: int) -> Figures:
            return fixed([Ask(clip, on.slots[clip.domain]) for clip in on.clips])

        def alike(number: int) -> Figures:
            return fixed([Ask(clip, slots[number % len(slots)]) for clip in on.clips])

        def fixed(asks: list[Ask]) -> Figures:
            return together(on, asks, plan.fixed_tokens).figures()

        ours = f"{len(on.clips)} over {len(slots)} domains"
        theirs = f"{len(on.clips)} of one domain"
        samples = take_turns({theirs: alike, ours: mixed}, rounds=plan.batch_rounds, warm_up=len(slots))
    return Comparison(
        key="mixing",
        title="A batch over several domains against a batch of one",
        how=f"The same {len(on.clips)} clips and {plan.fixed_tokens} new tokens each, the stop token "
        "switched off; what differs is whose experts answer: those of each clip's own domain, or one domain's for "
        "all, the domains in turns.",
        rows=tuple(samples.row(ours, theirs, metric) for metric in (WHOLE, DECODE, PREFILL)),
    )


def experts(subject: Subject, plan: Plan) -> Comparison:
    """What the experts cost: one domain's against none."""
    rows = []
    with running_engine(subject, plan.in_flight, endless=True) as on:

        def arm(asks: list[Ask]) -> Arm:
            return lambda _: together(on, asks, plan.fixed_tokens).figures()

        domain, slot = next(iter(on.slots.items()))
        for count in (plan.in_flight, 1):
            ours, theirs = f"experts, {count} in flight", f"frozen backbone, {count} in flight"
            clips = on.clips[:count]
            arms = {theirs: arm([Ask(c, 0) for c in clips]), ours: arm([Ask(c, slot) for c in clips])}
            samples = take_turns(arms, rounds=plan.batch_rounds, warm_up=2)
            rows += [samples.row(ours, theirs, metric) for metric in (WHOLE, DECODE, PREFILL)]
    return Comparison(
        key="experts",
        title="With experts against the frozen backbone",
        how=f"The same clips and {plan.fixed_tokens} new tokens each, the stop token switched off, with the "
        f"experts of `{domain}` in every adapted layer or with none.",
        rows=tuple(rows),
    )
