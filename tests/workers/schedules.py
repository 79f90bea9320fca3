"""Random schedules: who arrives when, with what, who is canceled and when, and how much room there is."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from threading import Event

from contract.errors import Code, JobFailure
from milora import AdapterBank, AdapterState, BankFull
from workers.engine import Engine, EngineLimits
from workers.prompt import Prompt
from workers.request import EngineAnswer, EngineRequest, RequestStopped

VIDEOS = (21, 22, 23, 25, 30, 47, 51, 59)
SLOTS, SEEDS, LONGEST = 5, 3, 20
SPATIAL_SLOTS = (1, 2, 3)
MOST_STEPS = 1000


@dataclass(frozen=True)
class Arrival:
    """One request that comes before step `at`; canceled `canceled_after` steps later unless that is None.

    `remembered`: what the vision tower makes of its video may come from, and goes to, the engine's cache.
    """

    at: int
    video: int
    slot: int
    max_new_tokens: int
    seed: int | None
    canceled_after: int | None
    remembered: bool

    @property
    def vision_key(self) -> tuple[int, int] | None:
        """As the pipeline makes it: an adapter without spatial experts sees what the frozen tower sees."""
        return (self.video, self.slot if self.slot in SPATIAL_SLOTS else 0) if self.remembered else None


@dataclass(frozen=True)
class Schedule:
    """The limits of an engine, and the requests in the order of their arrival."""

    limits: EngineLimits
    arrivals: tuple[Arrival, ...]


@dataclass(eq=False)
class Run:
    """What became of one arrival. `stop` is set only on a request that was unsettled still."""

    arrival: Arrival
    future: Future[EngineAnswer]
    stop: Event
    tokens: list[int] = field(default_factory=list)  # the counts that on_token was told


def random_schedule(number: int) -> Schedule:
    """The same schedule for the same number."""
    draw = random.Random(number)
    limits = EngineLimits(
        max_batch=draw.randint(1, 8),
        prefill_tokens=draw.choice([1, 250, 500, 1200, 16384]),
        vision_cache_bytes=draw.choice([0, 25_000, 1_000_000]),  # of no video, a few, all
    )
    steps = draw.choice([1, 10, 40])  # all at once, a crowd, or a trickle
    times = sorted(draw.randrange(steps) for _ in range(draw.randint(4, 12)))
    return Schedule(limits, tuple(_random_arrival(draw, at) for at in times))


def _random_arrival(draw: random.Random, at: int) -> Arrival:
    return Arrival(
        at=at,
        video=draw.choice(VIDEOS),
        slot=draw.randrange(SLOTS),
        max_new_tokens=draw.randint(1, LONGEST),
        seed=draw.randrange(SEEDS) if draw.random() < 0.15 else None,
        canceled_after=draw.randrange(15) if draw.random() < 0.3 else None,
        remembered=draw.random() < 0.7,
    )


class FewSlots:
    """Adapters in a bank of fewer slots than there are adapters, pinned as long as a request uses them."""

    def __init__(self, bank: AdapterBank, states: Mapping[int, AdapterState]) -> None:
        self.bank, self._states = bank, states
        self._pinned: list[tuple[Run, int]] = []

    def acquire(self, adapter: int, waiting: Callable[[], None] | None = None) -> int:
        """The slot of an adapter, 0 of none."""
        return self.bank.acquire(adapter or None, lambda: self._states[adapter], waiting=waiting)

    def submit(self, engine: Engine, arrival: Arrival, prompts: Mapping[int, Prompt]) -> Run | None:
        """Pin the adapter of a request and submit it; None while no slot can be had."""
        try:
            slot = self.acquire(arrival.slot)
        except BankFull:
            return None
        run = submit(engine, arrival, prompts, slot)
        self._pinned.append((run, arrival.slot))
        return run

    def release_settled(self) -> None:
        for run, adapter in self._pinned:
            if run.future.done():
                self.bank.release(adapter or None)
        self._pinned = [(run, adapter) for run, adapter in self._pinned if not run.future.done()]


def play(
    engine: Engine, schedule: Schedule, prompts: Mapping[int, Prompt], few: FewSlots | None = None
) -> list[Run]:
    """Take the engine through a schedule by hand, until every request is settled.

    With few slots a request arrives, and those behind it, when there is one for its adapter.
    """
    runs: list[Run] = []
    put = submit if few is None else few.submit
    for step in range(MOST_STEPS):
        coming = schedule.arrivals[len(runs) :]
        if not coming and all(run.future.done() for run in runs):
            return runs
        for arrival in coming:
            run = put(engine, arrival, prompts) if arrival.at <= step else None
            if run is None:
                break
            runs.append(run)
        canceled = [run for run in runs if _due(run, step) and not run.future.done()]
        for run in canceled:
            run.stop.set()
        engine.step()
        late = [run.arrival for run in canceled if not run.future.done()]
        assert not late, f"still there a step after they were canceled: {late}"
        if few is not None:
            few.release_settled()
    raise AssertionError(
        f"unsettled after {MOST_STEPS} steps: {[run for run in runs if not run.future.done()]}"
    )


def _due(run: Run, step: int) -> bool:
    after = run.arrival.canceled_after
    return after is not None and step == run.arrival.at + after


def submit(engine: Engine, arrival: Arrival, prompts: Mapping[int, Prompt], slot: int | None = None) -> Run:
    """Put one request of a schedule to the engine; its adapter is in the slot of its number unless told otherwise."""
    stop, counts = Event(), []
    request = EngineRequest(
        prompts[arrival.video],
        arrival.max_new_tokens,
        arrival.slot if slot is None else slot,
        arrival.seed,
        stop,
        on_token=lambda done, total: counts.append(done),
        vision_key=arrival.vision_key,
    )
    return Run(arrival, engine.submit(request), stop, counts)


def was_stopped(run: Run) -> bool:
    """Whether it ended as a canceled request has to."""
    return isinstance(run.future.exception(), RequestStopped)


def failure_code(run: Run) -> Code | None:
    """The code of the failure that it ended with, if it did."""
    failure = run.future.exception()
    return failure.code if isinstance(failure, JobFailure) else None
