"""The kill test's verdict: every broken promise is told, and fails the run."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from resilience.faults import FAULTS, Fault
from resilience.storm import Struck
from resilience.verdict import Evidence, judge, table

GOOD_END = {"status": "succeeded", "error": None, "attempts": 2}
EACH_KIND = [Struck(fault, "part", began=1.0, well=4.0) for fault in FAULTS]
LOST_END = {"status": "failed", "error": {"code": "job.lost"}, "attempts": 5}


def _evidence(**fields: Any) -> Evidence:
    """A kill test of one job in which every promise held, but for `fields`."""
    good = Evidence(
        minutes=10.0,
        accepted=["a"],
        ends={"a": GOOD_END},
        finishes=[5.0],
        written=Counter(a=1),
        problems=[],
        counts={},
        struck=EACH_KIND,
        stuck=[],
        books={"waiting list": 0},
        orphans=[],
        unasked=[],
        survivors=[],
        fewest_jobs=1,
    )
    return replace(good, **fields)


def test_promises_that_held_are_fine() -> None:
    verdict = judge(_evidence())
    assert verdict.failures == []
    assert verdict.figures["jobs_lost"] == verdict.figures["jobs_stuck"] == 0


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        ({"ends": {}}, "accepted a has no summary: no end"),
        ({"ends": {"a": LOST_END}}, "accepted a has no summary: job.lost"),
        ({"problems": ["a changed after its end: {}"]}, "a changed after its end"),
        ({"written": Counter(a=2)}, "a was written by 2 workers"),
        ({"stuck": ["a"]}, "a is stuck"),
        ({"books": {"waiting list": 1}}, "the queue's waiting list still holds 1"),
        ({"orphans": ["b"]}, "b belongs to no summary"),
        ({"unasked": ["b"]}, "b was made beside the one that was asked for"),
        ({"survivors": [7]}, "process 7 was left"),
        ({"problems": ["GET a: 410"]}, "GET a: 410"),
        ({"fewest_jobs": 2}, "1 jobs were accepted, 2 are needed"),
        ({"struck": [*EACH_KIND, Struck(FAULTS[0], "worker 1", began=1.0)]}, "worker 1 was never over"),
    ],
)
def test_a_broken_promise_is_told(broken: dict[str, Any], words: str) -> None:
    assert any(words in failure for failure in judge(_evidence(**broken)).failures)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
@pytest.mark.parametrize("what", ["idle", "missed"])
def test_a_run_in_which_a_fault_disturbed_nothing_is_no_proof(fault: Fault, what: str) -> None:
    """Killing a worker that holds no work, however often, says nothing of work that is killed."""
    others = [struck for struck in EACH_KIND if struck.fault is not fault]
    vain = [Struck(fault, "part", began=1.0, **{what: True}) for _ in range(7)]
    failures = judge(_evidence(struck=[*others, *vain])).failures
    assert failures == [f"{fault.name} disturbed nothing in this run, which so says nothing of it"]


def test_recovery_counts_from_the_fault_to_what_came_after_it() -> None:
    hits = [
        Struck(FAULTS[0], "worker 1", began=1.0, well=4.0),
        Struck(FAULTS[0], "worker 2", began=10.0, well=15.0),
        Struck(FAULTS[0], "worker 3", began=20.0, idle=True),
        Struck(FAULTS[0], "worker 3", began=30.0, missed=True),
    ]
    row = table(hits, finishes=[0.5, 2.0, 11.0])[FAULTS[0].name]
    assert row == {
        "count": 2,
        "recovery_s": {"median": 4.0, "max": 5.0},
        "next_finish_s": {"median": 1.0, "max": 1.0},
    }
