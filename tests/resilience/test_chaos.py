"""The kill test in short: every kind of fault once, on the whole service with a tiny backbone."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from resilience.faults import FAULTS
from resilience.system import PROC
from tests.tiny_backbone import write_tiny_backbone

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.skipif(not PROC.is_dir(), reason="the kill test reads /proc")
def test_no_accepted_job_is_lost_or_done_twice_while_everything_is_killed_in_turn(tmp_path: Path) -> None:
    backbone = write_tiny_backbone(tmp_path / "tiny")
    options = ["--minutes", "0.7", "--jobs", "25", "--clips", "1", "--backbone", str(backbone)]
    done = subprocess.run(
        [sys.executable, "-m", "resilience.chaos", *options],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    figures = json.loads(done.stdout.splitlines()[-1])
    assert figures["ok"]
    assert figures["jobs_accepted"] >= 25
    assert all(figures["by_fault"][fault.name]["count"] >= 1 for fault in FAULTS)
    assert done.stdout.splitlines()[-2] == "every promise held"
