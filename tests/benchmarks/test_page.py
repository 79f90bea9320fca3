"""docs/performance.md shows the run that is kept, and nothing that was not run."""

from __future__ import annotations

import pytest

from benchmarks.__main__ import COMPARISONS
from benchmarks.page import PAGE, filled, marked, reference
from benchmarks.report import SCHEMA_VERSION, Report

MARKED = "before\n<!-- measured: batching -->\nold\n<!-- end -->\nafter\n"


def test_a_marked_part_is_replaced_and_the_words_around_it_stay(report: Report) -> None:
    page = filled(MARKED, report)
    assert "old" not in page
    assert "**3.50** (3.00–4.00)" in page
    assert page.startswith("before\n")
    assert page.endswith("\nafter\n")


def test_filling_twice_changes_nothing(report: Report) -> None:
    once = filled(MARKED, report)
    assert filled(once, report) == once


def test_a_comparison_that_was_not_run_cannot_be_shown(report: Report) -> None:
    with pytest.raises(KeyError, match="exchange"):
        filled("<!-- measured: exchange -->\n<!-- end -->", report)


def test_the_page_shows_the_kept_run() -> None:
    page = PAGE.read_text()
    assert filled(page, reference()) == page, "run: python -m benchmarks.page"


def test_the_goals_are_a_part_of_the_page(report: Report) -> None:
    assert "| what | against | goal |" in filled("<!-- measured: goals -->\n<!-- end -->", report)


def test_the_page_shows_every_comparison_and_the_machine() -> None:
    assert set(marked(PAGE.read_text())) == {"goals", "machine", *COMPARISONS}


def test_the_kept_run_is_a_whole_one() -> None:
    assert reference().command.startswith("python -m benchmarks")
    assert reference().schema_version == SCHEMA_VERSION
    assert [found.key for found in reference().comparisons] == list(COMPARISONS)
