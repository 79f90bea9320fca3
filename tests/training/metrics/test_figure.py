"""Intervals."""

from __future__ import annotations

import numpy as np
import pytest

from training.metrics.figure import Figure, figures, mean, ratio


def test_the_interval_of_a_mean_is_the_normal_one_on_normal_scores() -> None:
    scores = np.random.default_rng(3).normal(10.0, 2.0, 400)
    figure = figures({"score": mean(scores)})["score"]
    error = 1.96 * scores.std() / 20
    assert figure.value == pytest.approx(scores.mean())
    assert figure.low == pytest.approx(scores.mean() - error, abs=0.1 * error)
    assert figure.high == pytest.approx(scores.mean() + error, abs=0.1 * error)


def test_equal_scores_have_an_interval_of_no_width() -> None:
    assert figures({"score": mean([0.5] * 9)})["score"] == Figure(0.5, 0.5, 0.5)


def test_equal_answers_give_equal_intervals() -> None:
    scores = np.random.default_rng(5).random(30)
    assert figures({"score": mean(scores)}) == figures({"score": mean(scores)})


def test_a_ratio_is_that_of_the_sums_and_not_the_mean_of_ratios() -> None:
    figure = figures({"share": ratio([1, 9], [2, 90])})["share"]
    assert figure.value == 10 / 92
    assert (figure.low, figure.high) == (9 / 90, 1 / 2)


def test_a_ratio_over_nothing_is_nothing() -> None:
    assert figures({"share": ratio([0, 0], [0, 0])})["share"] == Figure(0.0, 0.0, 0.0)


@pytest.mark.parametrize("statistics", [{}, {"score": mean([])}])
def test_no_answers_are_refused(statistics: dict) -> None:
    with pytest.raises(ValueError, match="no answers"):
        figures(statistics)
