"""Faults at random moments, several at once, each measured until it is over."""

from __future__ import annotations

import bisect
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random

from redis.exceptions import RedisError

from resilience.faults import FAULTS, LOOK_S, Fault, Scene
from resilience.system import Part

GIVE_UP_S = 120.0
BUSY_S, BUSY_LOOK_S = 10.0, 0.02
MORE_ROUNDS = 5


@dataclass
class Struck:
    """One fault: the part it hit and, in monotonic seconds, when it began and when all was well again (None: never)."""

    fault: Fault
    part: str
    began: float
    well: float | None = None
    missed: bool = False  # it could not be done: what it needed was down
    idle: bool = False  # it disturbed nothing

    @property
    def told(self) -> bool:
        """Whether it did something, so that what came of it says something."""
        return not (self.missed or self.idle)

    @property
    def recovery_s(self) -> float | None:
        return None if self.well is None else self.well - self.began

    def until_next_finish_s(self, finishes: list[float]) -> float | None:
        """Until the next summary was finished, whichever it was; None where none was."""
        index = bisect.bisect_right(finishes, self.began)
        return finishes[index] - self.began if index < len(finishes) else None


class Storm:
    """Deals out every kind of fault once, in a drawn order, then again; the moments and the parts are drawn too."""

    def __init__(
        self,
        scene: Scene,
        seed: int,
        pause_s: tuple[float, float],
        say: Callable[[str], None],
        faults: Sequence[Fault] = FAULTS,
    ) -> None:
        self._scene, self._pause_s, self._say, self._faults = scene, pause_s, say, faults
        self._draw = Random(seed)
        self._deck: list[Fault] = []
        self._threads: list[threading.Thread] = []
        self.struck: list[Struck] = []

    def run(self, until: Callable[[], bool]) -> None:
        """Strike while it is not `until`, then with what hit nothing yet; each is over when this returns."""
        while not until():
            fault = self._next()
            if not self._begin(fault):
                self._deck.append(fault)
        self._join()
        for _ in range(MORE_ROUNDS):
            for fault in self._faults:
                if not any(struck.told for struck in self.struck if struck.fault is fault):
                    self._begin(fault)
            self._join()

    def _begin(self, fault: Fault) -> bool:
        """Strike after a pause, once a part is there to be hit; False if there was none for a while."""
        time.sleep(self._draw.uniform(*self._pause_s))
        part = self._part_for(fault)
        if part is None:
            return False
        thread = threading.Thread(target=self._strike, args=(fault, part), daemon=True)
        thread.start()
        self._threads.append(thread)
        return True

    def _join(self) -> None:
        for thread in self._threads:
            thread.join()

    def _next(self) -> Fault:
        if not self._deck:
            self._deck = self._draw.sample(self._faults, len(self._faults))
        return self._deck.pop(0)

    def _part_for(self, fault: Fault) -> Part | None:
        """A part that this fault disturbs and that nothing else happens to just now; it is held from here on."""
        parts = self._scene.system.of(fault.kind)
        give_up = time.monotonic() + BUSY_S
        while time.monotonic() < give_up:
            for part in self._draw.sample(parts, len(parts)):
                if part.lock.acquire(blocking=False):
                    if fault.busy(self._scene, part):
                        return part
                    part.lock.release()
            time.sleep(BUSY_LOOK_S)
        return None

    def _strike(self, fault: Fault, part: Part) -> None:
        struck = Struck(fault, part.name, time.monotonic())
        self.struck.append(struck)
        try:
            watch = fault.strike(self._scene, part)
        except (OSError, RedisError) as missed:  # what it needed was down for another fault
            struck.missed = True
            self._say(f"{fault.name} missed {part.name}: {missed!r}")
            return
        finally:
            part.lock.release()
        give_up = struck.began + GIVE_UP_S
        while watch is not None and not watch.look():
            if time.monotonic() > give_up:
                self._say(f"{fault.name} at {part.name}: not over after {GIVE_UP_S:g} s")
                return
            time.sleep(LOOK_S)
        if watch is None or watch.idle:
            struck.idle = True
            self._say(f"{fault.name} at {part.name}: disturbed nothing")
            return
        struck.well = watch.since
        self._say(f"{fault.name} at {part.name}: well again after {struck.recovery_s:.1f} s")
