"""Writes the tables of docs/performance.md from the run that is kept: `python -m benchmarks.page`.

A table stands between `<!-- measured: KEY -->` and `<!-- end -->`; what is said around it is written by hand.
"""

from __future__ import annotations

import re
from pathlib import Path

from benchmarks.report import Report
from benchmarks.table import goals_markdown, machine_markdown, tables_markdown

PAGE = Path(__file__).parents[1] / "docs" / "performance.md"
REFERENCE = Path(__file__).parent / "results" / "reference.json"
MACHINE, GOALS = "machine", "goals"
_PART = re.compile(r"(<!-- measured: (?P<key>[a-z-]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def filled(page: str, report: Report) -> str:
    """The page with every marked part replaced by what the report says.

    Raises:
        KeyError: the page marks a comparison that the report does not have.
    """
    parts = {found.key: tables_markdown(found) for found in report.comparisons}
    parts |= {MACHINE: machine_markdown(report), GOALS: goals_markdown(report)}
    return _PART.sub(lambda match: f"{match[1]}\n{parts[match['key']]}\n\n{match[3]}", page)


def marked(page: str) -> list[str]:
    """The keys that a page shows."""
    return [match["key"] for match in _PART.finditer(page)]


def reference() -> Report:
    """The run that is kept."""
    return Report.model_validate_json(REFERENCE.read_text())


if __name__ == "__main__":
    PAGE.write_text(filled(PAGE.read_text(), reference()))
