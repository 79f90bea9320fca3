"""A run's logs: a CSV that a resumed run goes on in, and the same as TensorBoard events."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path

COLUMNS = ("step", "epoch", "clips", "seconds", "lr", "loss", "frobenius", "balance", "entropy",
           "rouge_l", "exact", "fact_f1")  # fmt: skip


class RunLog:
    """One line a step. ``step`` is where the run goes on: what an earlier run wrote beyond it is dropped."""

    def __init__(self, folder: Path, step: int, *, tensorboard: bool) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / "log.csv"
        #: What the run had written up to there, as text.
        self.kept = kept = [line for line in _lines(self._path) if int(line["step"]) <= step] if step else []
        partial = self._path.with_suffix(".partial")
        with partial.open("w", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
            writer.writeheader()
            writer.writerows(kept)
        partial.replace(self._path)  # a kill here leaves the old log or the new one
        self._file = self._path.open("a", newline="")
        self._writer = csv.DictWriter(self._file, COLUMNS, lineterminator="\n")
        self._events = None
        if tensorboard:
            from torch.utils.tensorboard import SummaryWriter

            self._events = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)

    def write(self, line: Mapping[str, float | int]) -> None:
        """One step's numbers; columns that it lacks stay empty."""
        self._writer.writerow({name: _short(value) for name, value in line.items()})
        if self._events is not None:
            for name, value in line.items():
                if name != "step":
                    self._events.add_scalar(name, value, int(line["step"]))

    def flush(self) -> None:
        """Have what was written on the disk's side."""
        self._file.flush()
        if self._events is not None:
            self._events.flush()

    def close(self) -> None:
        self._file.close()
        if self._events is not None:
            self._events.close()


def _lines(path: Path) -> list[dict[str, str]]:
    """Whole lines of an earlier run; the last may have been cut off by a kill."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return [
            line for line in csv.DictReader(file) if line["loss"] not in (None, "") and line["step"].isdigit()
        ]


def _short(value: float | int) -> float | int:
    return round(value, 8) if isinstance(value, float) else value
