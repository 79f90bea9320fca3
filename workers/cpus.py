"""How many CPUs this process may use: those it may run on, and no more than its control group is given time of."""

import math
import os
from pathlib import Path, PurePosixPath

_OWN = Path("/proc/self/cgroup")
_GROUPS = Path("/sys/fs/cgroup")


def usable_cpus(own: Path = _OWN, groups: Path = _GROUPS) -> int:
    """At least 1. A quota is rounded up: of one and a half CPUs, two are worth a thread each."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, math.ceil(min([allowed, *_quotas(own, groups)])))


def _quotas(own: Path, groups: Path) -> list[float]:
    """CPUs' worth of time that each group around this process may use, as far as there are such bounds.

    A line of `own` is id:controllers:path; version 2 has one, without controllers. Inside a container the path may be
    the host's, and the group's own files are at the top: so all from the path up to there are looked at.
    """
    try:
        lines = own.read_text().splitlines()
    except OSError:  # no Linux
        return []
    found: list[float] = []
    for _, controllers, path in (line.split(":", 2) for line in lines if line.count(":") >= 2):
        version_2 = not controllers
        if not version_2 and "cpu" not in controllers.split(","):
            continue
        top = groups if version_2 else groups / "cpu"
        below = PurePosixPath(path.lstrip("/"))
        for folder in (top / below, *(top / parent for parent in below.parents), top):
            found += _quota_2(folder) if version_2 else _quota_1(folder)
    return found


def _quota_2(folder: Path) -> list[float]:
    try:
        quota, period = (folder / "cpu.max").read_text().split()
        return [] if quota == "max" else [int(quota) / int(period)]
    except (OSError, ValueError):
        return []


def _quota_1(folder: Path) -> list[float]:
    try:
        quota = int((folder / "cpu.cfs_quota_us").read_text())
        return [quota / int((folder / "cpu.cfs_period_us").read_text())] if quota > 0 else []
    except (OSError, ValueError):
        return []
