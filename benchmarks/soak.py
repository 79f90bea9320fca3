"""A soak: the whole service at saturation for half an hour, and whether anything leaks.

    python -m benchmarks.soak --minutes 30 [--out FILE]

Random arrivals, bad files, cancels at any moment and new versions of the adapters; then everything is let end,
and what is left in memory, on disk and in the books is compared with what was there before. Prints a table and
one line of JSON. Exit status 1 if anything leaked or went wrong. Linux only: it reads /proc.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from benchmarks.soak_load import Load
from benchmarks.soak_probe import (
    DECODING,
    PROC,
    SHARED_MEMORY,
    Probe,
    Sample,
    Sampler,
    part_of,
    process_tree,
)
from benchmarks.soak_service import Running, render, serving
from benchmarks.soak_verdict import KINDS, MIB, Evidence, Verdict, decoding, judge
from training.world import DOMAINS

SAMPLE_S, FEWEST_SAMPLES = 10.0, 24
MOST_VERSIONS, SHORTEST_PUBLISH_S = 60, 4.0
DRAIN_S, SETTLE_S = 300.0, 20.0


def main(arguments: Sequence[str]) -> int:
    """Soak, tell, and the exit code."""
    options = _parser().parse_args(arguments)
    if not PROC.is_dir():
        print("a soak reads /proc, which this system does not have", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory(prefix="visum-soak-", dir="/tmp") as scratch:
        verdict = judge(soak(options, Path(scratch)))
        if verdict.failures and options.keep_log is not None:
            shutil.copy(Path(scratch) / "serve.log", options.keep_log)
    print(_table(verdict))
    line = json.dumps({**verdict.figures, "failures": verdict.failures, "ok": not verdict.failures})
    if options.out is not None:
        options.out.write_text(line + "\n")
    print(line)
    return 1 if verdict.failures else 0


def soak(options: argparse.Namespace, scratch: Path) -> Evidence:
    """Start the service, put it under load, stop it; all that was seen."""
    videos = render(scratch / "clips", options.clips)
    shared_before = set(SHARED_MEMORY.iterdir())
    with serving(scratch) as running:
        probe = Probe(running.process.pid, running.url, running.data, running.temporary)
        load = Load(running.url, running.data, videos, DOMAINS, options.seed)
        with closing(probe), closing(load):
            seen = _under_load(running, probe, load, 60 * options.minutes)
            pids = probe.pids()
        exit_code = running.stop()
    return Evidence(
        **seen,
        exit_code=exit_code,
        survivors=[command for pid, command in pids.items() if process_tree(pid).get(pid) == command],
        shared_memory_left=sorted(path.name for path in set(SHARED_MEMORY.iterdir()) - shared_before),
        errors=running.errors(),
    )


def _under_load(running: Running, probe: Probe, load: Load, seconds: float) -> dict[str, Any]:
    """Warm up, load, drain, audit: the fields of the evidence that need a service which runs."""
    _say("warming up")
    load.each_once()
    _drain(load)
    before, lasting = _idle(probe), _lasting(probe)
    began = time.monotonic()
    with Sampler(probe.sample, min(SAMPLE_S, seconds / FEWEST_SAMPLES), _tell) as sampler:
        load.run(seconds, max(seconds / MOST_VERSIONS, SHORTEST_PUBLISH_S))
    loaded_s = time.monotonic() - began
    _say("draining")
    unfinished = _drain(load)
    pids = probe.pids()
    return {
        "seconds": loaded_s,
        "before": before,
        "samples": sampler.samples,
        "after": _idle(probe, decoding(before)),
        "ends": load.audit(),
        "counts": load.counts,
        "problems": load.problems,
        "depths": load.depths,
        "unfinished": unfinished,
        "restarted": [command for pid, command in lasting.items() if pids.get(pid) != command],
    }


def _drain(load: Load) -> int:
    """Wait until nothing waits or runs; how many summaries still do after too long a time."""
    deadline = time.monotonic() + DRAIN_S
    while (unfinished := load.unfinished()) and time.monotonic() < deadline:
        time.sleep(0.5)
    return unfinished


def _idle(probe: Probe, most_decoding: int | None = None) -> Sample:
    """The service at rest: some seconds later, or more while it still decodes; connections had time to end."""
    time.sleep(SETTLE_S / 4)
    deadline = time.monotonic() + SETTLE_S
    while True:
        sample = probe.sample()
        if most_decoding is None or decoding(sample) <= most_decoding or time.monotonic() > deadline:
            return sample
        time.sleep(0.5)


def _lasting(probe: Probe) -> dict[int, str]:
    """pid → command line of what must live as long as the service."""
    return {pid: command for pid, command in probe.pids().items() if part_of(command) != DECODING}


def _tell(sample: Sample) -> None:
    parts = ", ".join(f"{name} {usage.anonymous / MIB:.0f}" for name, usage in sorted(sample.parts.items()))
    _say(f"{sample.at_s:6.0f} s  {sample.files.blobs} videos, MiB of their own: {parts}")


def _table(verdict: Verdict) -> str:
    figures = verdict.figures
    rows = [("memory under load, MiB", "early", "late", "slack", "")]
    for name, told in figures["memory_mib"].items():
        cells = (f"{told[key]:.1f}" for key in ("early", "late", "slack"))
        rows.append((name, *cells, "flat" if told["flat"] else "grew"))
    rows.append(("idle", "before", "after", "", ""))
    before, after = (figures[key]["parts_mib"] for key in ("idle_before", "idle_after"))
    for name in before:
        for kind in (*KINDS, "fds", "threads", "processes"):
            rows.append(
                (f"{name} {kind}", str(before[name][kind]), str(after.get(name, {}).get(kind)), "", "")
            )
    lines = ["".join([f"{row[0]:<28}", *(f"{cell:>10}" for cell in row[1:])]).rstrip() for row in rows]
    for key in ("jobs", "ends"):
        lines.append(f"{key}: " + ", ".join(f"{name} {count}" for name, count in figures[key].items()))
    if not figures["memory_judged"]:
        lines.append("too short a run to judge memory")
    return "\n".join([*lines, *(verdict.failures or ["nothing leaked, every summary ended as it has to"])])


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=__doc__.split("\n", 1)[0])
    parser.add_argument(
        "--minutes", type=float, default=30.0, help="length of the load (default: %(default)g)"
    )
    parser.add_argument("--clips", type=int, default=4, help="different clips of each domain")
    parser.add_argument("--seed", type=int, default=0, help="of everything that is drawn")
    parser.add_argument("--out", type=Path, help="file for the line of JSON")
    parser.add_argument("--keep-log", type=Path, help="where the service's log goes if anything failed")
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
