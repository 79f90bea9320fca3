"""Two or more ways of doing the same thing, measured in turns.

Each way (an *arm*) runs once or more for warming up, which is thrown away. Then every round runs all arms, each
round in the opposite order of the one before: what the machine does meanwhile hits all of them, and nobody is
always first. A ratio is taken within a round and only then summed up over the rounds.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from benchmarks.report import Row
from benchmarks.spread import Spread


@dataclass(frozen=True)
class Metric:
    """One figure that an arm gives in every round."""

    name: str
    unit: str
    higher_is_better: bool = True


Figures = Mapping[Metric, float]
Arm = Callable[[int], Figures]
"""Does the work once and says what it measured. The argument is the round, -1 and below while warming up."""


@dataclass(frozen=True)
class Samples:
    """What every arm measured, round by round."""

    rounds: Mapping[str, list[Figures]]

    def values(self, arm: str, metric: Metric) -> list[float]:
        return [figures[metric] for figures in self.rounds[arm]]

    def row(self, arm: str, against: str, metric: Metric, *, model: str = "", goal: str | None = None) -> Row:
        """One arm beside another; a ratio above 1 says that `arm` is the better one.

        `model` and `goal` are for tables: what ran, and which of `benchmarks.goals.GOALS` the ratio is held to.
        """
        ours, theirs = self.values(arm, metric), self.values(against, metric)
        pairs = zip(ours, theirs, strict=True)
        ratios = [a / b if metric.higher_is_better else b / a for a, b in pairs]
        return Row(
            metric=metric.name,
            unit=metric.unit,
            higher_is_better=metric.higher_is_better,
            name=arm,
            against=against,
            value=Spread.of(ours),
            baseline=Spread.of(theirs),
            ratio=Spread.of(ratios),
            model=model,
            goal=goal,
        )


def take_turns(arms: Mapping[str, Arm], *, rounds: int, warm_up: int = 1) -> Samples:
    """Run all arms, `warm_up` + `rounds` times each.

    Raises:
        ValueError: fewer than one round.
    """
    if rounds < 1:
        raise ValueError(f"{rounds} rounds measure nothing")
    found: dict[str, list[Figures]] = {name: [] for name in arms}
    with _own_garbage_only():
        for number in range(-warm_up, rounds):
            order = list(arms) if number % 2 == 0 else list(arms)[::-1]
            for name in order:
                gc.collect()  # what an arm left behind must not be collected in the next one's time
                figures = arms[name](number)
                if number >= 0:
                    found[name].append(figures)
    return Samples(found)


@contextmanager
def _own_garbage_only() -> Iterator[None]:
    """Leaves all that exists already out of every collection inside the block: models are large and stay."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
