"""A report survives JSON, and its tables say what it holds."""

from __future__ import annotations

import pytest

from benchmarks.report import Report
from benchmarks.spread import Spread
from benchmarks.table import report_markdown


def test_a_report_comes_back_from_json_as_it_was(report: Report) -> None:
    assert Report.model_validate_json(report.model_dump_json()) == report


def test_a_row_shows_both_sides_and_the_ratio_with_their_spread(report: Report) -> None:
    line = "| together | apart | whole answers, tokens/s | 350 (300–400) | 105 (100–110) | **3.50** (3.00–4.00) |"
    assert line in report_markdown(report).splitlines()


def test_a_breakdown_shows_every_share(report: Report) -> None:
    assert "| import | 0.50 s | 0.50–0.50 |" in report_markdown(report).splitlines()


def test_the_machine_and_the_command_are_named(report: Report) -> None:
    text = report_markdown(report)
    assert "A processor, 2 cores, 8 GiB" in text
    assert "torch 2.15" in text
    assert "`python -m benchmarks`, 2026-01-02" in text


def test_a_busy_machine_is_told(report: Report) -> None:
    busy = report.model_copy(update={"machine": report.machine.model_copy(update={"idle": 0.4})})
    assert "**the machine was not idle:** 40 %" in report_markdown(busy)
    assert "not idle" not in report_markdown(report)


def test_a_spread_is_median_and_extremes() -> None:
    spread = Spread.of([3.0, 1.0, 2.0, 10.0])
    assert (spread.median, spread.low, spread.high, spread.count) == (2.5, 1.0, 10.0, 4)


def test_a_spread_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="nothing was measured"):
        Spread.of([])
