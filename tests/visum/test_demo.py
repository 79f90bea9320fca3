"""The demo, as `make demo` runs it, over a tiny backbone."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.visum.running import clean_environment


def run_demo(*files: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "visum.demo", *map(str, files)],
        env=clean_environment(**environment),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_the_demo_prints_progress_summaries_and_what_it_is(tiny_backbone: Path, clips: list[Path]) -> None:
    done = run_demo(*clips[:2], VISUM_BACKBONE=str(tiny_backbone))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "backbone tiny: random weights for tests" in done.stdout
    assert "point VISUM_BACKBONE at a VideoLLaMA3 checkpoint" in done.stdout
    for clip in clips[:2]:
        assert f"{clip.name}: uploading" in done.stderr
        assert f"{clip.name}: succeeded" in done.stderr
        assert f"\n{clip.name}  " in done.stdout
        assert f"what {clip.name} shows: " in done.stdout
    assert "the service is stopped" in done.stdout


def test_a_service_that_cannot_start_fails_the_demo_with_the_end_of_its_log(clips: list[Path]) -> None:
    done = run_demo(clips[0], VISUM_BACKBONE="no-such-backbone")
    assert done.returncode == 1
    assert "no backbone 'no-such-backbone'" in done.stderr
    assert done.stderr.endswith("The service ended before it was ready. The end of its log is above.\n")
