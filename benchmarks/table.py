"""A report as Markdown."""

from __future__ import annotations

from benchmarks.machine import Machine
from benchmarks.report import Breakdown, Comparison, Report, Row
from benchmarks.spread import Spread

HEAD = "| what | against | figure | what (median, min–max) | against (median, min–max) | ratio (median, min–max) |"
GOALS_HEAD = "| what | against | goal | measured (median, min–max) | met |"
GOALS_RULE = "| --- | --- | --- | --- | --- |"
RULE = "| --- | --- | --- | --- | --- | --- |"


def report_markdown(report: Report) -> str:
    """The whole report."""
    parts = [f"## Goals\n\n{goals_markdown(report)}"] if report.rows else []
    parts += [machine_markdown(report), *(comparison_markdown(found) for found in report.comparisons)]
    return "\n\n".join(parts) + "\n"


def goals_markdown(report: Report) -> str:
    """Every goal beside what was measured: a ratio with the range over the rounds, or seconds."""
    lines = [GOALS_HEAD, GOALS_RULE]
    for row in report.rows:
        goal = "–" if row.goal is None else f"≥ {row.goal:g}"
        met = "–" if row.met is None else "yes" if row.met else "**no**"
        measured = f"{_number(row.measured)} ({_number(row.low)}–{_number(row.high)})"
        lines.append(f"| {row.name} | {row.against} | {goal} | {measured} | {met} |")
    return "\n".join(lines)


def machine_markdown(report: Report) -> str:
    """The machine, the command and the day."""
    machine = report.machine
    packages = ", ".join(f"{name} {version}" for name, version in machine.packages.items())
    lines = [
        f"- {machine.cpu}, {machine.cores} cores, {_memory(machine)}, {machine.system}",
        f"- Python {machine.python}, {packages}; torch uses {machine.torch_threads} threads and "
        f"{machine.torch_capability}",
        f"- {report.subject}",
        f"- `{report.command}`, {report.began_at:%Y-%m-%d %H:%M} UTC, {report.seconds:.0f} s in all"
        + (f", commit {report.commit}" if report.commit else ""),
        f"- {_idle(machine)}",
    ]
    return "\n".join(lines)


def comparison_markdown(found: Comparison) -> str:
    """One comparison under a heading of its own."""
    return f"## {found.title}\n\n{tables_markdown(found)}"


def tables_markdown(found: Comparison) -> str:
    """What was run, and what came out."""
    parts = [found.how]
    if found.rows:
        rows = [
            f"| {_named(row)} | {row.against} | {row.metric}, {row.unit} | {_spread(row.value)} "
            f"| {_spread(row.baseline)} | **{_number(row.ratio.median)}** ({_range(row.ratio)}) |"
            for row in found.rows
        ]
        parts.append("\n".join([HEAD, RULE, *rows]))
        parts.append(f"{_repeats(found)} A ratio above 1: the first is better.")
    parts += [_breakdown(part) for part in found.breakdowns]
    if found.notes:
        parts.append("\n".join(f"- {note}" for note in found.notes))
    return "\n\n".join(parts)


def _named(row: Row) -> str:
    return f"{row.model}: {row.name}" if row.model else row.name


def _breakdown(part: Breakdown) -> str:
    lines = [f"| {part.title} | median | min–max |", "| --- | --- | --- |"]
    for share in part.shares:
        number, spread = _number(share.value.median), _range(share.value)
        lines.append(f"| {share.name} | {number} {share.unit} | {spread} |")
    return "\n".join(lines)


def _repeats(found: Comparison) -> str:
    counts = sorted({row.value.count for row in found.rows})
    return f"{' or '.join(map(str, counts))} rounds."


def _spread(spread: Spread) -> str:
    return f"{_number(spread.median)} ({_range(spread)})"


def _range(spread: Spread) -> str:
    return f"{_number(spread.low)}–{_number(spread.high)}"


def _number(value: float) -> str:
    """Three digits that count, never an exponent."""
    if value >= 100:
        return f"{value:.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}" if value >= 0.1 else f"{value:.3f}"


def _memory(machine: Machine) -> str:
    return "memory unknown" if machine.memory_gib is None else f"{machine.memory_gib:g} GiB"


def _idle(machine: Machine) -> str:
    if machine.idle is None:
        return "how busy the machine was before the run is not known"
    share = f"{100 * machine.idle:.0f} % of its CPU time was idle just before the run"
    return share if machine.quiet else f"**the machine was not idle:** {share}"
