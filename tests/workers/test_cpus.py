"""The CPUs that a process may use, by files as the kernel writes them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from workers.cpus import usable_cpus

ALLOWED = usable_cpus(Path("/no/such/file"))


def _files(folder: Path, own: str, told: dict[str, str]) -> tuple[Path, Path]:
    for name, text in told.items():
        path = folder / "groups" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (folder / "own").write_text(own)
    return folder / "own", folder / "groups"


def test_without_a_quota_they_are_those_it_may_run_on(tmp_path: Path) -> None:
    assert usable_cpus(*_files(tmp_path, "0::/\n", {"cpu.max": "max 100000\n"})) == ALLOWED
    assert 1 <= ALLOWED <= (os.cpu_count() or 1)


@pytest.mark.parametrize(
    ("own", "told"),
    [
        ("0::/\n", {"cpu.max": "50000 100000\n"}),
        ("0::/a/b\n", {"a/b/cpu.max": "max 100000\n", "a/cpu.max": "50000 100000\n"}),
        ("0::/of/the/host\n", {"cpu.max": "50000 100000\n"}),
        (
            "4:cpu,cpuacct:/a\n3:memory:/b\n",
            {"cpu/a/cpu.cfs_quota_us": "50000\n", "cpu/a/cpu.cfs_period_us": "100000\n"},
        ),
    ],
    ids=["version 2", "of a group around it", "seen from inside a container", "version 1"],
)
def test_a_quota_bounds_them_rounded_up(tmp_path: Path, own: str, told: dict[str, str]) -> None:
    assert usable_cpus(*_files(tmp_path, own, told)) == 1


def test_no_quota_of_version_1_is_no_bound(tmp_path: Path) -> None:
    told = {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}
    assert usable_cpus(*_files(tmp_path, "4:cpu:/\n", told)) == ALLOWED
