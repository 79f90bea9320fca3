"""How good answers are: every figure of the texts and, in the demo world, of their facts, each with its interval."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from training.metrics.figure import Figure, Statistic, figures, mean, ratio
from training.metrics.names import LABELS as TEXT_LABELS
from training.metrics.text import TextScorer
from training.world import Clip
from training.world.scoring import ATTRIBUTES, FactScore, score_facts

LABELS = {
    **TEXT_LABELS,
    "exact": "exact",
    "fact_precision": "fact precision",
    "fact_recall": "fact recall",
    "fact_f1": "fact F1",
    "invented": "invented facts",
    **{f"precision_{name}": f"precision: {name}" for name in ATTRIBUTES},
    **{f"recall_{name}": f"recall: {name}" for name in ATTRIBUTES},
}
"""Every figure's name as data, and as people read it."""


@dataclass(frozen=True)
class Answer:
    """One summary, what people wrote of the video, and the domain that the service answered for.

    ``clip`` is the demo world's, whose facts are known; None for any other video.
    """

    summary: str
    references: tuple[str, ...]
    selected: str
    clip: Clip | None = None

    @classmethod
    def of_clip(cls, clip: Clip, summary: str, selected: str) -> Answer:
        return cls(summary, (clip.summary,), selected, clip)


@dataclass(frozen=True)
class Scores:
    """``figures`` by the names of LABELS; ``selected`` counts the domains that answered."""

    answers: int
    figures: dict[str, Figure]
    selected: dict[str, int]


def score(answers: Sequence[Answer], scorer: TextScorer) -> Scores:
    """Scores answers against their references and, if all are of the demo world, against its facts.

    ``exact`` is the share of summaries that equal a reference. Fact precision is the share of the facts told that hold,
    recall the share of the clips' facts that are told, F1 their harmonic mean, all over the sums of all answers.
    ``invented`` is the share of told objects, colours, counts and directions that are nowhere in the clip.

    Raises:
        ValueError: there are no answers.
        MetricUnavailable: a tool that a metric needs does not run.
    """
    if not answers:
        raise ValueError("there are no answers to score")
    statistics = scorer.statistics([a.summary for a in answers], [a.references for a in answers])
    statistics["exact"] = mean([float(a.summary in a.references) for a in answers])
    facts = [score_facts(a.summary, a.clip) for a in answers if a.clip is not None]
    if len(facts) == len(answers):
        statistics |= _fact_statistics(facts)
    return Scores(
        answers=len(answers),
        figures=figures(statistics),
        selected=dict(Counter(a.selected for a in answers)),
    )


def _fact_statistics(facts: Sequence[FactScore]) -> dict[str, Statistic]:
    precision = ratio([f.true.total() for f in facts], [f.told.total() for f in facts])
    recall = ratio([f.right.total() for f in facts], [f.total.total() for f in facts])

    def f1(total: np.ndarray) -> float:
        p, r = precision.value(total[:2]), recall.value(total[2:])
        return 2 * p * r / (p + r) if p + r else 0.0

    found = {
        "fact_precision": precision,
        "fact_recall": recall,
        "fact_f1": Statistic(np.hstack([precision.rows, recall.rows]), f1),
        "invented": ratio(
            [f.invented.total() for f in facts], [f.told.total() - f.told["order"] for f in facts]
        ),
    }
    for name in ATTRIBUTES:
        found[f"precision_{name}"] = ratio([f.true[name] for f in facts], [f.told[name] for f in facts])
        found[f"recall_{name}"] = ratio([f.right[name] for f in facts], [f.total[name] for f in facts])
    return found
