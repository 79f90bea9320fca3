"""What was found, and which promises it keeps: a table for people and one line for machines."""

from __future__ import annotations

import json
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Finding:
    """One figure; `promise` is empty where it is only told."""

    what: str
    figure: str
    promise: str
    kept: bool
    value: float


@dataclass
class Verdict:
    """Collects findings."""

    findings: list[Finding] = field(default_factory=list)

    def tell(self, what: str, figure: str, value: float) -> None:
        self.findings.append(Finding(what, figure, "", True, value))

    def hold(self, what: str, figure: str, promise: str, kept: bool, value: float) -> None:
        self.findings.append(Finding(what, figure, promise, kept, value))

    @property
    def broken(self) -> list[str]:
        return [finding.what for finding in self.findings if not finding.kept]

    def table(self) -> str:
        """Markdown."""
        rows = ["| what | found | promised | kept |", "| --- | --- | --- | --- |"]
        for one in self.findings:
            kept = "–" if not one.promise else "yes" if one.kept else "**no**"
            rows.append(f"| {one.what} | {one.figure} | {one.promise or '–'} | {kept} |")
        return "\n".join(rows)

    def line(self) -> str:
        """One line of JSON."""
        values = {one.what: round(one.value, 4) for one in self.findings}
        return json.dumps({"figures": values, "broken": self.broken, "ok": not self.broken})
