"""A figure with its interval, from statistics of each example that add up.

Every figure here is a function of sums over examples: a mean of scores, BLEU's counts, a ratio of facts. So one rule
serves all: the figure is the function of the plain sum, and its 95 % interval is that of the function over sums of
examples drawn again with replacement (percentile bootstrap, seeded: equal answers give equal intervals). All figures of
one set of answers see the same draws.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

RESAMPLES, RESAMPLE_SEED = 1000, 17


@dataclass(frozen=True)
class Figure:
    """A value and its 95 % bootstrap interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, eq=False)
class Statistic:
    """``rows`` (N, D) float64, what each example contributes; ``value`` makes the figure of their sum (D,)."""

    rows: np.ndarray
    value: Callable[[np.ndarray], float]


def mean(scores: Sequence[float]) -> Statistic:
    """The mean of a score of each example."""
    return ratio(scores, [1.0] * len(scores))


def ratio(numerators: Sequence[float], denominators: Sequence[float]) -> Statistic:
    """Sum over sum; 0 where there is nothing to divide by."""
    rows = np.array([numerators, denominators], np.float64).T
    return Statistic(rows, lambda total: float(total[0] / total[1]) if total[1] else 0.0)


def figures(statistics: Mapping[str, Statistic]) -> dict[str, Figure]:
    """The figure of each statistic, all over the same resampled examples.

    Raises:
        ValueError: there are no examples.
    """
    counts = {len(statistic.rows) for statistic in statistics.values()}
    if not statistics or counts == {0}:
        raise ValueError("there are no answers to score")
    (examples,) = counts
    draws = np.random.default_rng(RESAMPLE_SEED).multinomial(examples, [1 / examples] * examples, RESAMPLES)
    return {name: _figure(statistic, draws.astype(np.float64)) for name, statistic in statistics.items()}


def _figure(statistic: Statistic, draws: np.ndarray) -> Figure:
    low, high = np.quantile([statistic.value(total) for total in draws @ statistic.rows], (0.025, 0.975))
    return Figure(statistic.value(statistic.rows.sum(axis=0)), float(low), float(high))
