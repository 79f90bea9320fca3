"""The API under fuzzing: its own OpenAPI document by schemathesis, and a model of every summary by hypothesis.

    python -m resilience.api [--examples N] [--walks N] [--out FILE]

Keys are asked for, a worker works, Valkey is real. Prints a table and one line of JSON. Exit status 1 if an answer
was a 5xx, was not in the document, or was not the model's.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, settings
from hypothesis import seed as seeded
from hypothesis.stateful import run_state_machine_as_test

from resilience.api_machine import machine_for
from resilience.api_schema import Outcome, fuzz
from resilience.api_service import Running, running


def main(arguments: Sequence[str]) -> int:
    """Fuzz, walk, tell, and the exit code."""
    options = _parser().parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what it started is ended with it
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="visum-api-", dir="/tmp") as name:
        scratch = Path(name)
        with running(scratch / "fuzzed") as service:
            found = fuzz(service, scratch, examples=options.examples)
        with running(scratch / "walked", worker=False) as service:
            wrong = walk(service, walks=options.walks, steps=options.steps, seed=options.seed)
    if found.failures:
        print(found.report, file=sys.stderr)
    if wrong is not None:
        print(wrong, file=sys.stderr)
    figures = _figures(found, wrong, options) | {"seconds": round(time.monotonic() - began, 1)}
    print(_table(found, figures))
    line = json.dumps(figures)
    if options.out is not None:
        options.out.write_text(line + "\n")
    print(line)
    return 0 if figures["ok"] else 1


def walk(service: Running, *, walks: int, steps: int, seed: int, shrink: bool = True) -> str | None:
    """So many random walks over the model; None, or where and how an answer was not the model's.

    `shrink` makes the walk that shows it as short as it can be, which takes many more.
    """
    settled = settings(
        max_examples=walks,
        stateful_step_count=steps,
        phases=[Phase.generate, *([Phase.shrink] if shrink else [])],
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    try:
        run_state_machine_as_test(seeded(seed)(machine_for(service)), settings=settled)
    except Exception:  # an assertion of the model, or whatever a wrong answer made of the client
        return traceback.format_exc()
    return None


def _figures(found: Outcome, wrong: str | None, options: argparse.Namespace) -> dict[str, Any]:
    figures: dict[str, Any] = {
        "requests": found.requests,
        "server_errors": found.server_errors,
        "undocumented": found.undocumented,
        "other_failures": found.other_failures,
        "accepted": found.answers["POST", 202],
        "walks": options.walks,
        "steps_each": options.steps,
        "seed": options.seed,
        "walks_off_the_model": int(wrong is not None),
    }
    bad = ("server_errors", "undocumented", "other_failures", "walks_off_the_model")
    return figures | {"ok": not any(figures[name] for name in bad)}


def _table(found: Outcome, figures: dict[str, Any]) -> str:
    rows = ["| method | answers by status |", "| --- | --- |"]
    for method in sorted({method for method, _ in found.answers}):
        counts = (
            f"{status}: {count}" for (of, status), count in sorted(found.answers.items()) if of == method
        )
        rows.append(f"| {method} | {', '.join(counts)} |")
    rows += ["", "| what | found | promised |", "| --- | --- | --- |"]
    rows += [f"| requests made of the OpenAPI document | {figures['requests']} | – |"]
    for name in ("server_errors", "undocumented", "other_failures", "walks_off_the_model"):
        rows.append(f"| {name.replace('_', ' ')} | {figures[name]} | 0 |")
    return "\n".join(rows)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m resilience.api", description=__doc__.split("\n", 1)[0])
    parser.add_argument("--examples", type=int, default=200, help="cases an operation (default: %(default)s)")
    parser.add_argument("--walks", type=int, default=150, help="walks over the model (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=40, help="steps of a walk (default: %(default)s)")
    parser.add_argument(
        "--seed", type=int, default=time.time_ns() % 2**32, help="of the walks; another each time"
    )
    parser.add_argument("--out", type=Path, help="file for the line of JSON")
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
