"""Arms take turns, warming up does not count, and ratios are taken within a round."""

from __future__ import annotations

import pytest

from benchmarks.side_by_side import Figures, Metric, Samples, take_turns

SPEED = Metric("speed", "tokens/s")
PAUSE = Metric("pause", "ms", higher_is_better=False)


def noting(log: list[tuple[str, int]], name: str, value: float = 1.0):
    def arm(number: int) -> Figures:
        log.append((name, number))
        return {SPEED: value}

    return arm


def test_every_round_runs_the_arms_in_the_opposite_order_of_the_one_before() -> None:
    log: list[tuple[str, int]] = []
    take_turns({"a": noting(log, "a"), "b": noting(log, "b")}, rounds=4, warm_up=0)
    assert [name for name, _ in log] == ["a", "b", "b", "a", "a", "b", "b", "a"]


def test_every_arm_is_first_as_often_as_the_other_over_an_even_number_of_rounds() -> None:
    log: list[tuple[str, int]] = []
    take_turns({"a": noting(log, "a"), "b": noting(log, "b")}, rounds=6)
    counted = [name for name, number in log if number >= 0]
    assert counted[::2].count("a") == 3


def test_warming_up_runs_every_arm_and_counts_for_none() -> None:
    log: list[tuple[str, int]] = []
    samples = take_turns({"a": noting(log, "a"), "b": noting(log, "b")}, rounds=3, warm_up=2)
    assert [number for name, number in log if name == "a"] == [-2, -1, 0, 1, 2]
    assert len(samples.rounds["a"]) == 3


def test_a_ratio_is_taken_within_each_round_and_then_summed_up() -> None:
    ours = [{SPEED: value} for value in (20.0, 60.0, 30.0)]
    theirs = [{SPEED: value} for value in (10.0, 20.0, 15.0)]
    row = Samples({"ours": ours, "theirs": theirs}).row("ours", "theirs", SPEED)
    assert (row.value.median, row.baseline.median) == (30.0, 15.0)
    assert (row.ratio.median, row.ratio.low, row.ratio.high) == (2.0, 2.0, 3.0)


def test_a_shorter_time_makes_a_ratio_above_one() -> None:
    samples = Samples({"ours": [{PAUSE: 2.0}], "theirs": [{PAUSE: 10.0}]})
    assert samples.row("ours", "theirs", PAUSE).ratio.median == 5.0


def test_a_measurement_of_no_rounds_is_refused() -> None:
    with pytest.raises(ValueError, match="0 rounds measure nothing"):
        take_turns({"a": noting([], "a")}, rounds=0)
