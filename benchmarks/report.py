"""What a run found, as it is kept in JSON."""

from __future__ import annotations

from pydantic import AwareDatetime, BaseModel, ConfigDict

from benchmarks.machine import Machine
from benchmarks.spread import Spread

SCHEMA_VERSION = 1


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Row(_Part):
    """One way of doing something beside another one. `ratio` above 1: the first is better."""

    metric: str
    unit: str
    higher_is_better: bool
    name: str
    against: str
    value: Spread
    baseline: Spread
    ratio: Spread


class Share(_Part):
    """One piece of a whole, such as a phase of a start."""

    name: str
    unit: str
    value: Spread


class Breakdown(_Part):
    """Where the time of something goes."""

    title: str
    shares: tuple[Share, ...]


class Comparison(_Part):
    """Everything measured about one question. `how` says in a sentence or two what was run."""

    key: str
    title: str
    how: str
    rows: tuple[Row, ...] = ()
    breakdowns: tuple[Breakdown, ...] = ()
    notes: tuple[str, ...] = ()
    seconds: float = 0.0


class Report(_Part):
    """One run of `python -m benchmarks`."""

    schema_version: int = SCHEMA_VERSION
    command: str
    began_at: AwareDatetime
    seconds: float
    machine: Machine
    subject: str
    comparisons: tuple[Comparison, ...]
