"""What the terminal shows of an answer: the summary, each expert's weight, and where the time went."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.text import Text

BAR_CELLS = 32
EIGHTHS = " ▏▎▍▌▋▊▉"
GROUPS = (("temporal", "cyan"), ("spatial", "magenta"))


def bar(share: float, cells: int = BAR_CELLS) -> str:
    """A bar of `share` (0..1) of `cells`, to an eighth of a cell."""
    eighths = round(min(max(share, 0.0), 1.0) * cells * 8)
    return "█" * (eighths // 8) + EIGHTHS[eighths % 8].strip()


def gate_lines(gates: dict[str, Any]) -> Iterator[Text]:
    """One line per expert of each group: the mean of its gate over the group's layers."""
    for group, colour in GROUPS:
        if gates.get(group) is None:
            continue
        for number, weight in enumerate(gates[group]["experts"], start=1):
            label = f"{group if number == 1 else '':<9} expert {number}  "
            yield Text.assemble((label, "dim"), f"{weight:.2f} ", (bar(weight), colour))


def show_result(console: Console, name: str, record: dict[str, Any]) -> None:
    """Print one finished record: the answer with its gates, or why there is none."""
    if record["status"] != "succeeded":
        error = record.get("error") or {}
        why = error.get("message") or "it was canceled"
        code = f" [{error['code']}]" if error.get("code") else ""
        console.print(Text.assemble((name, "bold"), ": ", (record["status"], "red"), f": {why}{code}"))
        return
    result = record["result"]
    console.print(Text.assemble((name, "bold"), "  ", (_headline(result), "dim")))
    console.print(f"  {escape(result['summary'])}", soft_wrap=True)
    if result.get("gates") is None:
        console.print("  answered by the frozen backbone alone: no experts, so no gates", style="dim")
    else:
        for line in gate_lines(result["gates"]):
            console.print(Text("  ") + line)
    console.print(f"  {_timing(result)}", style="dim")


def _headline(result: dict[str, Any]) -> str:
    domain, model, video = result["domain"], result["model"], result["video"]
    score = (domain.get("scores") or {}).get(domain["selected"])
    chosen = (
        f"{domain['selected']} (auto, {score:.2f})"
        if domain["requested"] == "auto" and score is not None
        else domain["selected"]
    )
    adapter = f", experts {model['adapter']} v{model['adapter_version']}" if model.get("adapter") else ""
    seen = f"{video['duration_s']:.1f} s, {video['frames']['count']} frames"
    return f"{seen}; domain {chosen}; {model['backbone']}{adapter}"


def _timing(result: dict[str, Any]) -> str:
    timings = result["timings_ms"]
    parts = [f"{stage} {timings[stage]:.0f}" for stage in timings if stage != "total"]
    return f"{timings['total']:.0f} ms: " + ", ".join(parts)
