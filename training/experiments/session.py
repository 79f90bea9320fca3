"""`visum ablate` from plan to pages: sweeps first, then the compared runs, then what is measured beside them."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from training.experiments.catalogue import (
    EXPERIMENTS,
    Experiment,
    compared_specs,
    sweep_specs,
)
from training.experiments.report import best_rates, rows_of, write_report
from training.experiments.runner import Machine, estimate_s, finished, run_all
from training.experiments.spec import RunSpec, Size

NAMES = (*EXPERIMENTS, "cost", "specialize")
#: Of those that are no table of arms, on two cores.
_COST_MINUTES, _SPECIALIZE_MINUTES = 1, 3
Tell = Callable[[str], None]


@dataclass(frozen=True)
class Session:
    """Some experiments on one machine."""

    names: Sequence[str]
    seeds: int
    size: Size
    machine: Machine
    out: Path
    command: str

    @property
    def tables(self) -> list[Experiment]:
        """Those that compare arms."""
        return [EXPERIMENTS[name] for name in self.names if name in EXPERIMENTS]

    def plan(self) -> str:
        """What would run, run counts shared runs once, and the time it takes here."""
        seen: set[str] = set()
        lines = [f"{'experiment':<12} {'runs':>5} {'done':>5} {'minutes':>8}"]
        parts: list[tuple[str, list[RunSpec]]] = [("sweeps", self._sweeps())]
        swept = {spec.key: finished(self.machine, spec) for spec in self._sweeps()}
        known = all(result is not None for result in swept.values())  # else: any rate, runs of one length
        rates = best_rates(self.tables, self.size, swept)[0] if known else {}
        parts += [
            (table.name, list(compared_specs(table, self.seeds, rates, self.size))) for table in self.tables
        ]
        everything: dict[str, RunSpec] = {}
        for name, specs in parts:
            own = {spec.key: spec for spec in specs if spec.key not in seen}
            seen |= set(own)
            everything |= own
            done = sum(finished(self.machine, spec) is not None for spec in own.values())
            minutes = estimate_s(self.machine, own.values()) / 60
            lines.append(f"{name:<12} {len(own):>5} {done:>5} {minutes:>8.0f}")
        minutes = estimate_s(self.machine, everything.values()) / 60
        if "cost" in self.names:
            lines.append(f"{'cost':<12} {1:>5} {'':>5} {_COST_MINUTES:>8.0f}")
            minutes += _COST_MINUTES
        if "specialize" in self.names:
            own = _SPECIALIZE_MINUTES * self.seeds * self.size.clips / Size().clips
            lines.append(f"{'specialize':<12} {self.seeds:>5} {'':>5} {own:>8.0f}")
            minutes += own
        lines.append(f"{'all':<12} {len(everything):>5} {'':>5} {minutes:>8.0f}")
        lines.append(
            f"{self.machine.side_by_side} runs at a time, {self.machine.threads} thread each; runs that several "
            "experiments need are counted once, where they are first needed; learning rates are chosen by the sweeps"
        )
        return "\n".join(lines)

    def run(self, tell: Tell) -> None:
        """Run what is not finished and write the pages.

        Raises:
            RunsFailed: some runs failed; all others are kept.
        """
        if self.tables:
            sweeps = run_all(self.machine, self._sweeps(), self._said(tell, "sweep"))
            rates, rows = best_rates(self.tables, self.size, sweeps)
            specs = {
                spec.key: spec
                for table in self.tables
                for spec in compared_specs(table, self.seeds, rates, self.size)
            }
            results = run_all(self.machine, specs.values(), self._said(tell, "run"))
            for table in self.tables:
                own = {arm.tuned_as or arm.name for arm in table.arms}
                write_report(
                    self.out,
                    table,
                    self.command,
                    self.size,
                    rows_of(table, self.seeds, rates, self.size, results),
                    [row for row in rows if row["arm"] in own and row["domain"] in table.swept_on],
                    _machine(self.machine),
                )
                tell(f"{table.name}: {self.out / table.name}.md")
        if "cost" in self.names:
            from training.experiments.cost import write_cost

            tell(f"cost: {write_cost(self.machine, self.out, self.command)}")
        if "specialize" in self.names:
            from training.experiments.specialize import write_specialization

            tell(
                f"specialize: {write_specialization(self.machine, self.size, self.out, self.command, self.seeds)}"
            )

    def _sweeps(self) -> list[RunSpec]:
        return [spec for _, _, spec in sweep_specs(self.tables, self.size)]

    @staticmethod
    def _said(tell: Tell, what: str) -> Callable[[str, int, int], None]:
        started = time.monotonic()

        def say(key: str, done: int, total: int) -> None:
            tell(f"{what} {done}/{total} after {(time.monotonic() - started) / 60:.1f} min: {key}")

        return say


def _machine(machine: Machine) -> str:
    return (
        f"{os.cpu_count()} CPU cores ({platform.machine()}), {machine.side_by_side} runs side by side, "
        f"{machine.threads} thread each"
    )
