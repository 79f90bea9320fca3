"""Goals stand beside what was measured, missed ones too."""

from __future__ import annotations

import json

import pytest

from benchmarks.goals import GOALS, LOAD, QUEUE, START, goal_rows, missed
from benchmarks.report import Breakdown, Comparison, Report, Row, Share
from benchmarks.spread import Spread
from benchmarks.table import goals_markdown, report_markdown


def row(goal: str | None, *ratios: float, model: str = "") -> Row:
    spread = Spread.of(ratios)
    return Row(
        metric="one exchange",
        unit="ms",
        higher_is_better=False,
        name="ours",
        against="theirs",
        value=spread,
        baseline=spread,
        ratio=spread,
        model=model,
        goal=goal,
    )


def comparison(*rows: Row, shares: tuple[Share, ...] = ()) -> Comparison:
    parts = (Breakdown(title="start", shares=shares),) if shares else ()
    return Comparison(key="some", title="Some", how="So.", rows=rows, breakdowns=parts)


def test_a_goal_is_met_by_the_median() -> None:
    (found,) = goal_rows([comparison(row(LOAD, 9.0, 12.0, 10.0, model="demo, fp32"))])
    assert (found.goal, found.measured, found.low, found.high, found.met) == (10.0, 10.0, 9.0, 12.0, True)
    assert found.name == "exchange of a non-resident adapter, host to device, one exchange (demo, fp32)"
    assert found.against == "PEFT `load_adapter` from disk"


def test_a_missed_goal_stays_in_the_table_as_missed(report: Report) -> None:
    rows = goal_rows([comparison(row(LOAD, 9.9))])
    assert rows[0].met is False
    assert "| ≥ 10 | 9.90 (9.90–9.90) | **no** |" in goals_markdown(report.model_copy(update={"rows": rows}))


def test_rows_without_a_goal_are_left_out_and_the_others_come_in_the_order_of_the_goals() -> None:
    found = goal_rows([comparison(row(QUEUE, 4.0), row(None, 1.0)), comparison(row(LOAD, 11.0))])
    assert [part.goal for part in found] == [10.0, 3.0]


def test_what_is_only_measured_has_no_goal_to_meet() -> None:
    share = Share(name="ready", unit="s", value=Spread.of([3.0, 4.0]), goal=START)
    (found,) = goal_rows([comparison(shares=(share,))])
    assert (found.name, found.goal, found.met) == ("worker start to ready, warm disk, s", None, None)
    assert found.measured == 3.5


@pytest.mark.parametrize(("ratio", "is_missed"), [(9.9, True), (10.0, False)])
def test_a_row_is_missed_below_its_goal(ratio: float, is_missed: bool) -> None:
    assert missed(row(LOAD, ratio)) is is_missed
    assert not missed(row(None, ratio))


def test_the_kept_json_has_the_goals_as_rows_at_its_top(report: Report) -> None:
    rows = goal_rows([comparison(row(LOAD, 11.0))])
    kept = json.loads(report.model_copy(update={"rows": rows}).model_dump_json())
    assert {"command", "began_at", "seconds", "machine", "subject", "rows", "comparisons"} <= set(kept)
    assert set(kept["rows"][0]) == {"name", "against", "goal", "measured", "low", "high", "met"}


def test_the_goals_are_the_first_table_of_a_report(report: Report) -> None:
    with_goals = report.model_copy(update={"rows": goal_rows([comparison(row(LOAD, 11.0))])})
    assert report_markdown(with_goals).startswith("## Goals\n")


def test_goals_are_ratios_to_reach_or_nothing() -> None:
    assert all(goal.least is None or goal.least > 0 for goal in GOALS.values())
    assert [key for key, goal in GOALS.items() if goal.least is None] == ["mixed, demo", START]
