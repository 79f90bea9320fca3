"""What a run found, as it is kept in JSON."""

from __future__ import annotations

from pydantic import AwareDatetime, BaseModel, ConfigDict

from benchmarks.machine import Machine
from benchmarks.spread import Spread

SCHEMA_VERSION = 2


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class GoalRow(_Part):
    """A ratio beside the least that it is to be. `goal` and `met` are None where something is only measured."""

    name: str
    against: str
    goal: float | None
    measured: float
    low: float
    high: float
    met: bool | None


class Row(_Part):
    """One way of doing something beside another one. `ratio` above 1: the first is better.

    `model` says what ran where a comparison is over several models; `goal` is a key of `benchmarks.goals.GOALS`.
    """

    metric: str
    unit: str
    higher_is_better: bool
    name: str
    against: str
    value: Spread
    baseline: Spread
    ratio: Spread
    model: str = ""
    goal: str | None = None


class Share(_Part):
    """One piece of a whole, such as a phase of a start. `goal` as in a row."""

    name: str
    unit: str
    value: Spread
    goal: str | None = None


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
    """One run of `python -m benchmarks`. `rows` are the goals and what was measured, `comparisons` all the rest.

    `commit` ends in + where files differed from it.
    """

    schema_version: int = SCHEMA_VERSION
    command: str
    began_at: AwareDatetime
    commit: str | None = None
    seconds: float
    machine: Machine
    subject: str
    rows: tuple[GoalRow, ...] = ()
    comparisons: tuple[Comparison, ...]
