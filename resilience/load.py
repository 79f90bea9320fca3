"""Load: what the gateway costs beside the least that does its work, and whether it stays as fast and as small.

    python -m resilience.load [--quick] [--only PHASE] [--out FILE]

Prints a table and one line of JSON. Exit status 1 if a promise is broken. Linux only: it reads /proc.
"""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.machine import idle_share
from resilience.load_beside import beside
from resilience.load_crowd import crowd, uploads_at_once
from resilience.load_memory import memory
from resilience.load_plan import FULL, QUICK, Plan
from resilience.load_records import records
from resilience.load_service import running
from resilience.load_verdict import Verdict

PHASES = {"beside": beside, "records": records, "uploads": uploads_at_once, "crowd": crowd}
MEMORY = "memory"


def main(arguments: Sequence[str]) -> int:
    """Load, tell, and the exit code."""
    options = _parser().parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what it started is ended with it
    verdict = Verdict()
    idle = idle_share(2.0)
    if idle is not None:
        verdict.tell("of the machine idle before", f"{idle:.0%}", idle)
    with tempfile.TemporaryDirectory(prefix="visum-load-", dir="/tmp") as scratch:
        load(Path(scratch), QUICK if options.quick else FULL, options.only or [*PHASES, MEMORY], verdict)
    print(verdict.table())
    if options.out is not None:
        options.out.write_text(verdict.line() + "\n")
    print(verdict.line())
    return 1 if verdict.broken else 0


def load(scratch: Path, plan: Plan, phases: Sequence[str], verdict: Verdict) -> None:
    """The phases in their order, the first ones on one gateway."""
    if set(phases) & set(PHASES):
        with running(scratch / "gateway") as service:
            for name, phase in PHASES.items():
                if name in phases:
                    print(f"{name} …", file=sys.stderr, flush=True)
                    phase(service, plan, verdict)
    if MEMORY in phases:
        print(f"{MEMORY} …", file=sys.stderr, flush=True)
        memory(scratch / MEMORY, plan, verdict)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m resilience.load", description=__doc__.split("\n", 1)[0])
    parser.add_argument("--quick", action="store_true", help="only show that everything runs")
    parser.add_argument("--only", action="append", choices=[*PHASES, MEMORY], help="may be repeated")
    parser.add_argument("--out", type=Path, help="file for the line of JSON")
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
