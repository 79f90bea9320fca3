"""How good answers are while training: ROUGE-L and exact match, and by facts where the truth is known."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rouge_score.rouge_scorer import RougeScorer

from training.trainer.method import Method
from training.trainer.passes import ForwardPass, Pair
from training.trainer.samples import Samples, WithFacts
from training.world import Clip
from training.world.scoring import ATTRIBUTES, score_facts


@dataclass(frozen=True)
class Facts:
    """Of all facts together: the share of those told that is right, of the true ones that is told, and both in one."""

    precision: float
    recall: float
    f1: float
    recall_by_attribute: dict[str, float]


@dataclass(frozen=True)
class Quality:
    """Means over ``clips`` answers, 0..1, and one example. ROUGE-L is against the best of a video's references."""

    clips: int
    rouge_l: float
    exact: float
    facts: Facts | None
    example: str
    reference: str

    def figures(self) -> dict[str, float]:
        """The numbers for a log."""
        figures = {"rouge_l": self.rouge_l, "exact": self.exact}
        return figures if self.facts is None else figures | {"fact_f1": self.facts.f1}

    @classmethod
    def of(cls, saved: Mapping[str, Any]) -> Quality:
        """The counterpart of `as_json`."""
        facts = saved["facts"]
        return cls(**{**saved, "facts": None if facts is None else Facts(**facts)})

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def answer(
    forward: ForwardPass, method: Method, samples: Samples, instruction: str, *, clips: int, limit: int
) -> list[str]:
    """Greedy answers to the first ``clips`` samples; dropout is off meanwhile."""
    learning = method.module.training
    method.module.eval()
    try:
        pairs = [Pair.of(samples[index], instruction) for index in range(min(clips, len(samples)))]
        return forward.answers(pairs, method, limit)
    finally:
        method.module.train(learning)


def judge(samples: Samples, answers: Sequence[str]) -> Quality:
    """Scores answers to the first samples.

    Raises:
        ValueError: there are no answers.
    """
    if not answers:
        raise ValueError("there are no answers to score")
    scorer = RougeScorer(["rougeL"])
    references = [samples[index].references for index in range(len(answers))]
    pairs = list(zip(references, answers, strict=True))
    rouge = [scorer.score_multi(list(own), told)["rougeL"].fmeasure for own, told in pairs]
    exact = [told in own for own, told in pairs]
    facts = None
    if isinstance(samples, WithFacts):
        facts = fact_quality([samples.clip(index) for index in range(len(answers))], answers)
    count = len(answers)
    return Quality(count, sum(rouge) / count, sum(exact) / count, facts, answers[0], references[0][0])


def fact_quality(clips: Sequence[Clip], answers: Sequence[str]) -> Facts:
    """Precision, recall and F1 over the facts of all clips: object, colour, count, direction, order."""
    counts = {name: Counter() for name in ("right", "total", "true", "told")}
    for clip, text in zip(clips, answers, strict=True):
        score = score_facts(text, clip)
        for name, count in counts.items():
            count.update(getattr(score, name))
    sums = {name: sum(count.values()) for name, count in counts.items()}
    precision, recall = sums["true"] / max(1, sums["told"]), sums["right"] / max(1, sums["total"])
    f1 = 2 * precision * recall / (precision + recall) if sums["right"] and sums["true"] else 0.0
    by_attribute = {name: counts["right"][name] / max(1, counts["total"][name]) for name in ATTRIBUTES}
    return Facts(precision, recall, f1, by_attribute)
