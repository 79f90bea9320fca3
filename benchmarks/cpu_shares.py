"""Which part of a running service takes how much of the processors. Linux only."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping

from benchmarks.report import Breakdown, Share
from benchmarks.soak_probe import PROC, part_of, process_tree
from benchmarks.spread import Spread

_USER, _CHILDREN_SYSTEM = 11, 14
"""Of /proc/PID/stat after the command: utime, stime, and those of the children that have ended."""


def cpu_seconds(root: int) -> Counter[str]:
    """Part → CPU seconds of its processes until now, those of its ended children among them."""
    found: Counter[str] = Counter()
    for pid, command in process_tree(root).items():
        try:
            fields = (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):  # it has just ended, and counts as its parent's child
            continue
        ticks = sum(int(field) for field in fields[_USER : _CHILDREN_SYSTEM + 1])
        found[part_of(command)] += ticks / os.sysconf("SC_CLK_TCK")
    return found


def cpu_breakdown(title: str, spent: Mapping[str, float], jobs: int, seconds: float) -> Breakdown:
    """CPU milliseconds a job by part, and how much of all cores they are together."""
    shares = [
        Share(name=part, unit="ms", value=Spread.of([1000 * cpu / jobs]))
        for part, cpu in sorted(spent.items(), key=lambda item: -item[1])
    ]
    busy = 100 * sum(spent.values()) / (seconds * (os.cpu_count() or 1))
    shares.append(Share(name="all of them, of the machine's cores", unit="%", value=Spread.of([busy])))
    return Breakdown(title=title, shares=tuple(shares))
