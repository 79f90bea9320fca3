"""Faults at random moments, several at once, each measured until it is over."""

from __future__ import annotations

import bisect
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from redis.exceptions import RedisError

from resilience.faults import FAULTS, Fault, Scene
from resilience.system import Part

GIVE_UP_S = 120.0
LOOK_S = 0.1


@dataclass
class Struck:
    """One fault: the part it hit and, in monotonic seconds, when it began and when all was well again (None: never)."""

    fault: Fault
    part: str
    began: float
    well: float | None = None
    missed: bool = False  # it could not be done: what it needed was down
    idle: bool = False  # nothing ran there

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
        self, scene: Scene, seed: int, pause_s: tuple[float, float], say: Callable[[str], None]
    ) -> None:
        self._scene, self._pause_s, self._say = scene, pause_s, say
        self._draw = Random(seed)
        self._deck: list[Fault] = []
        self._threads: list[threading.Thread] = []
        self.struck: list[Struck] = []

    def run(self, until: Callable[[], bool]) -> None:
        """Strike while it is not `until` and every kind has not struck once; then wait for each to be over."""
        while not until() or {struck.fault for struck in self.struck} != set(FAULTS):
            time.sleep(self._draw.uniform(*self._pause_s))
            fault = self._next()
            part = self._free_part(fault.kind)
            if part is None:
                self._deck.append(fault)  # all of that kind are being hit: later
                continue
            thread = threading.Thread(target=self._strike, args=(fault, part), daemon=True)
            thread.start()
            self._threads.append(thread)
        for thread in self._threads:
            thread.join()

    def _next(self) -> Fault:
        if not self._deck:
            self._deck = self._draw.sample(FAULTS, len(FAULTS))
        return self._deck.pop(0)

    def _free_part(self, kind: str) -> Part | None:
        """A part of this kind that nothing happens to just now; it is held from here on."""
        parts = self._scene.system.of(kind)
        for part in self._draw.sample(parts, len(parts)):
            if part.lock.acquire(blocking=False):
                return part
        return None

    def _strike(self, fault: Fault, part: Part) -> None:
        struck = Struck(fault, part.name, time.monotonic())
        self.struck.append(struck)
        try:
            well = fault.strike(self._scene, part)
        except (OSError, RedisError) as missed:  # what it needed was down for another fault
            struck.missed = True
            self._say(f"{fault.name} missed {part.name}: {missed!r}")
            return
        finally:
            part.lock.release()
        if well is None:
            struck.idle = True
            self._say(f"{fault.name} at {part.name}: nothing ran there")
            return
        give_up = struck.began + GIVE_UP_S
        while not well():
            if time.monotonic() > give_up:
                self._say(f"{fault.name} at {part.name}: not over after {GIVE_UP_S:g} s")
                return
            time.sleep(LOOK_S)
        struck.well = time.monotonic()
        self._say(f"{fault.name} at {part.name}: well again after {struck.recovery_s:.1f} s")
