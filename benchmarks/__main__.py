"""`python -m benchmarks`: goals and comparisons, as Markdown on the screen and as JSON and Markdown in a folder."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from benchmarks.goals import goal_rows
from benchmarks.plan import FULL, QUICK, Plan
from benchmarks.quiet import quiet
from benchmarks.report import Comparison, Report
from benchmarks.table import comparison_markdown, goals_markdown, report_markdown

RESULTS = Path(__file__).parent / "results"

#: key → module and function, in the order in which they run: the noisiest last.
COMPARISONS = {
    "domains": ("domains", "domains"),
    "xlora": ("xlora", "xlora"),
    "rotation": ("rotation", "rotation"),
    "exchange": ("exchange", "exchange"),
    "batching": ("batching", "batching"),
    "exactness": ("exactness", "exactness"),
    "decoding": ("video_decoding", "video_decoding"),
    "start": ("start", "start"),
    "upload": ("upload", "upload"),
    "queued": ("queued", "queued"),
    "service": ("service", "service"),
}
GPU_COMPARISONS = {"gpu": ("gpu", "gpu")}
"""Only where there is a GPU."""


def main(arguments: Sequence[str]) -> int:
    """Measure what was asked for; the exit code."""
    options = _parser().parse_args(arguments)
    if options.list:
        print("\n".join(COMPARISONS))
        return 0
    # A developer's own service must not lend its settings to what is measured.
    for name in [name for name in os.environ if name.startswith("VISUM_")]:
        del os.environ[name]
    quiet()
    keys = [key for key in available() if not options.only or key in options.only]
    report = run(keys, QUICK if options.quick else FULL, options, _command(arguments))
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "latest.json").write_text(report.model_dump_json(indent=2) + "\n")
    (options.out / "latest.md").write_text(report_markdown(report))
    print(report_markdown(report))
    print(goals_markdown(report))
    _say(f"written to {options.out}/latest.json and latest.md")
    return 0


def available() -> dict[str, tuple[str, str]]:
    """The comparisons that this machine can run."""
    import torch

    known = COMPARISONS | (GPU_COMPARISONS if torch.cuda.is_available() else {})
    return {key: place for key, place in known.items() if find_spec(f"benchmarks.{place[0]}")}


def run(keys: Sequence[str], plan: Plan, options: argparse.Namespace, command: str) -> Report:
    """One report of these comparisons."""
    from benchmarks.machine import commit_of, this_machine
    from benchmarks.subject import prepare

    began, began_at = time.monotonic(), datetime.now(UTC)
    machine = this_machine()
    if not machine.quiet:
        _say(
            "this machine is busy with something else: the figures will say more about that than about ViSum"
        )
    with tempfile.TemporaryDirectory(prefix="visum-bench-") as scratch:
        _say("rendering the clips")
        subject = prepare(options.backbone, options.store, plan.clips_per_domain, Path(scratch))
        comparisons = tuple(_measure(key, lambda way: way(subject, plan)) for key in keys)
        described = subject.describe()
    return Report(
        command=command,
        began_at=began_at,
        commit=commit_of(Path(__file__).parents[1]),
        seconds=time.monotonic() - began,
        machine=machine,
        subject=described,
        rows=goal_rows(comparisons),
        comparisons=comparisons,
    )


def _measure(key: str, run: Callable[[Callable[..., Comparison]], Comparison]) -> Comparison:
    module, function = (COMPARISONS | GPU_COMPARISONS)[key]
    _say(f"{key} …")
    began = time.monotonic()
    found = run(getattr(import_module(f"benchmarks.{module}"), function))
    found = found.model_copy(update={"seconds": round(time.monotonic() - began, 1)})
    _say(f"{key}: {found.seconds:.0f} s\n\n{comparison_markdown(found)}\n")
    return found


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _command(arguments: Sequence[str]) -> str:
    return " ".join(["python -m benchmarks", *arguments])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description="Measure ViSum on this machine."
    )
    parser.add_argument(
        "--only", action="append", choices=[*COMPARISONS, *GPU_COMPARISONS], help="may be repeated"
    )
    parser.add_argument("--quick", action="store_true", help="only show that everything runs")
    parser.add_argument(
        "--backbone", default="visum-demo", help="name, folder or hub id (default: %(default)s)"
    )
    parser.add_argument("--store", type=Path, help="folder of adapters and backbones beside the shipped ones")
    parser.add_argument(
        "--out", type=Path, default=RESULTS, help="folder of the report (default: %(default)s)"
    )
    parser.add_argument("--list", action="store_true", help="the comparisons' names")
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
