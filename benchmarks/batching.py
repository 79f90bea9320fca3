"""A full batch of whole answers against one request after another."""

from __future__ import annotations

from benchmarks.case import demo_case
from benchmarks.engine_arm import WHOLE, Round, Way, one_by_one, own_domains, running, together
from benchmarks.plan import Plan
from benchmarks.report import Comparison
from benchmarks.side_by_side import Arm, Figures, take_turns
from benchmarks.subject import Subject


def batching(subject: Subject, plan: Plan) -> Comparison:
    """As many as are in flight, each answered by its own domain's experts."""
    case = demo_case(subject, plan)
    with running(case) as on:
        asks = own_domains(on)
        alone, batch = "one after another", f"{len(asks)} in flight"
        last: dict[str, Round] = {}

        def arm(name: str, way: Way) -> Arm:
            def run(_: int) -> Figures:
                last[name] = way(on, asks, case.backbone.manifest.max_new_tokens)
                return {WHOLE: last[name].tokens_per_second}

            return run

        arms = {alone: arm(alone, one_by_one), batch: arm(batch, together)}
        samples = take_turns(arms, rounds=plan.answer_rounds)
    same = sum(a == b for a, b in zip(last[alone].texts, last[batch].texts, strict=True))
    return Comparison(
        key="batching",
        title="A batch against one request after another",
        how=f"{len(asks)} clips over {len({ask.slot for ask in asks})} domains, each answered to its end by its own "
        "domain's experts.",
        rows=(samples.row(batch, alone, WHOLE, model=case.name),),
        notes=(f"Both ways gave the same answer to {same} of the {len(asks)} clips.",),
    )
