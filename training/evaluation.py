"""How good answers are against the demo world's truth: ROUGE-L, exact match, facts, with confidence intervals."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from rouge_score.rouge_scorer import RougeScorer

from training.world import Clip
from training.world.scoring import ATTRIBUTES, score_facts

_RESAMPLES, _RESAMPLE_SEED = 1000, 17


@dataclass(frozen=True)
class Answer:
    """One summary of one clip, and the domain that the service answered for."""

    clip: Clip
    summary: str
    selected: str


@dataclass(frozen=True)
class Scores:
    """Means over answers, all 0..1. ``rouge_l_interval`` is the 95 % bootstrap interval of ROUGE-L's mean."""

    answers: int
    rouge_l: float
    rouge_l_interval: tuple[float, float]
    exact: float
    facts: float
    facts_by_attribute: dict[str, float]
    selected: dict[str, int]


def score(answers: Sequence[Answer]) -> Scores:
    """Scores answers against their clips' references and facts.

    ROUGE-L is rouge-score's F-measure without stemming. ``facts`` is the share of all the references' facts (object,
    colour, count, direction, order) that the summaries tell rightly.

    Raises:
        ValueError: there are no answers.
    """
    if not answers:
        raise ValueError("there are no answers to score")
    scorer = RougeScorer(["rougeL"])
    rouge = [scorer.score(a.clip.summary, a.summary)["rougeL"].fmeasure for a in answers]
    right: Counter[str] = Counter()
    total: Counter[str] = Counter()
    for answer in answers:
        facts = score_facts(answer.summary, answer.clip)
        right.update(facts.right)
        total.update(facts.total)
    return Scores(
        answers=len(answers),
        rouge_l=sum(rouge) / len(rouge),
        rouge_l_interval=_bootstrap(rouge),
        exact=sum(a.summary == a.clip.summary for a in answers) / len(answers),
        facts=sum(right.values()) / sum(total.values()),
        facts_by_attribute={name: right[name] / total[name] for name in ATTRIBUTES},
        selected=dict(Counter(a.selected for a in answers)),
    )


def _bootstrap(values: Sequence[float]) -> tuple[float, float]:
    """The percentile interval of the mean over resampled values."""
    rng = random.Random(_RESAMPLE_SEED)
    means = sorted(sum(rng.choices(values, k=len(values))) / len(values) for _ in range(_RESAMPLES))
    return means[int(0.025 * _RESAMPLES)], means[int(0.975 * _RESAMPLES) - 1]
