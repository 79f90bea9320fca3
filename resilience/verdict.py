"""Whether the promises held: nothing lost, nothing answered twice, nothing stuck, nothing left behind."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from statistics import median
from typing import Any

from resilience.faults import FAULTS
from resilience.storm import Struck


@dataclass(frozen=True)
class Evidence:
    """What a kill test saw. `ends` is id → the first finished answer, `accepted` every id that a 202 named."""

    minutes: float
    accepted: list[str]
    ends: dict[str, dict[str, Any]]
    finishes: list[float]
    written: Counter[str]  # id → how many workers wrote a result and saw it accepted
    problems: list[str]
    counts: dict[str, int]
    struck: list[Struck]
    stuck: list[str]
    books: dict[str, int]  # what the queue's lists still hold
    orphans: list[str]
    unasked: list[str]  # records that no 202 named: a repeated request was done twice
    survivors: list[int]
    fewest_jobs: int


@dataclass(frozen=True)
class Verdict:
    """The figures, and what was broken."""

    figures: dict[str, Any]
    failures: list[str]


def judge(seen: Evidence) -> Verdict:
    """Compare what was seen with what is promised."""
    lost = {
        summary_id: (seen.ends[summary_id]["error"] or {}).get("code", seen.ends[summary_id]["status"])
        if summary_id in seen.ends
        else "no end"
        for summary_id in seen.accepted
        if summary_id not in seen.ends or seen.ends[summary_id]["status"] != "succeeded"
    }
    changed = [problem for problem in seen.problems if "changed after its end" in problem]
    others = [problem for problem in seen.problems if problem not in changed]
    twice = [summary_id for summary_id, times in seen.written.items() if times > 1]
    failures = [
        *(f"accepted {summary_id} has no summary: {why}" for summary_id, why in sorted(lost.items())),
        *changed,
        *(f"{summary_id} was written by {seen.written[summary_id]} workers" for summary_id in twice),
        *(f"{summary_id} is stuck" for summary_id in seen.stuck),
        *(f"the queue's {name} still holds {count}" for name, count in seen.books.items() if count),
        *(f"{name} belongs to no summary" for name in seen.orphans),
        *(f"{summary_id} was made beside the one that was asked for" for summary_id in seen.unasked),
        *(f"process {pid} was left" for pid in seen.survivors),
        *others,
    ]
    if len(seen.accepted) < seen.fewest_jobs:
        failures.append(f"{len(seen.accepted)} jobs were accepted, {seen.fewest_jobs} are needed")
    told = [struck for struck in seen.struck if struck.told]
    untried = [fault.name for fault in FAULTS if all(struck.fault is not fault for struck in told)]
    failures += [f"{name} disturbed nothing in this run, which so says nothing of it" for name in untried]
    never = [struck for struck in told if struck.well is None]
    failures += [f"{struck.fault.name} at {struck.part} was never over" for struck in never]
    figures = {
        "minutes": round(seen.minutes, 1),
        "jobs_accepted": len(seen.accepted),
        "jobs_lost": len(lost),
        "jobs_with_two_results": len({*twice, *(line.split()[0] for line in changed)}),
        "jobs_stuck": len(seen.stuck),
        "orphaned_blobs": len(seen.orphans),
        "jobs_nobody_asked_for": len(seen.unasked),
        "orphaned_processes": len(seen.survivors),
        "most_attempts": max((end["attempts"] for end in seen.ends.values()), default=0),
        "faults": len(told),
        "faults_that_disturbed_nothing": len(seen.struck) - len(told),
        "by_fault": table(seen.struck, seen.finishes),
        "clients_saw": dict(sorted(seen.counts.items())),
    }
    return Verdict(figures, failures)


def table(struck: list[Struck], finishes: list[float]) -> dict[str, dict[str, Any]]:
    """Per kind of fault: how often it hit something, and the median and longest seconds until all was well and until
    the next finish."""
    rows = {}
    for fault in FAULTS:
        hits = [hit for hit in struck if hit.fault is fault and hit.told]
        rows[fault.name] = {
            "count": len(hits),
            "recovery_s": _spread([hit.recovery_s for hit in hits]),
            "next_finish_s": _spread([hit.until_next_finish_s(finishes) for hit in hits]),
        }
    return rows


def _spread(seconds: list[float | None]) -> dict[str, float] | None:
    known = [value for value in seconds if value is not None]
    return {"median": round(median(known), 1), "max": round(max(known), 1)} if known else None
