"""A fixed number of adapters resident beside the model, exchanged by least recent use.

Slot 0 stands for no adapter and costs nothing. A slot is pinned as long as any request in flight uses it and
is never written meanwhile, so that a request keeps the generation it began with; new versions are new keys.

Adapters are loaded and copied on the caller's thread while others use the model: no request reads a slot that
is not ready, and what a decode step multiplies of it has weight zero. On a GPU the copy runs on a stream of its
own. One key is loaded once, however many callers wait for it.

Who has to wait for a slot stands in line. A request for a resident adapter need not, and so a rare one could wait for
ever behind popular ones: when the first in line has waited `PATIENCE_S`, the least recently used adapter takes no new
pins until there was a slot for it.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from threading import Condition

import torch

from milora.errors import BankFull
from milora.model import MiloraModel
from milora.state import AdapterState

PATIENCE_S = 1.0
"""About an answer's length: so long others may go ahead of the first in line."""
_LOOK_S = 0.1


@dataclass(frozen=True)
class BankStats:
    """Counts since the bank was made; ``resident`` and ``pinned`` are as of now. ``waits`` are of callers who found no
    slot for theirs."""

    hits: int = 0
    misses: int = 0
    evictions: int = 0
    waits: int = 0
    resident: int = 0
    pinned: int = 0


@dataclass(eq=False)
class _Waiter:
    """Somebody in line, and the adapter that takes no new pins for their sake once they have waited for long."""

    key: Hashable
    since: float = field(default_factory=time.monotonic)
    makes_way: Hashable | None = None
    counted: bool = False


class AdapterBank:
    """Which adapter sits in which slot of an injected model. Safe to call from several threads.

    A key names one immutable generation of an adapter, e.g. (domain, version, sha256); ``None`` is no
    adapter.
    """

    def __init__(self, handle: MiloraModel) -> None:
        handle.requires_grad_(False).eval()
        self._handle = handle
        self._slot_of: OrderedDict[Hashable, int] = OrderedDict()  # least recently used first
        self._pins: dict[Hashable, int] = {}
        self._free = list(range(handle.slots, 0, -1))
        self._loading: set[Hashable] = set()
        self._promised = 0  # slots, free or to be vacated, to loads that have not taken theirs
        self._line: list[_Waiter] = []
        self._stats = BankStats()
        self._changed = Condition()
        self._stream = torch.cuda.Stream(handle.device) if handle.device.type == "cuda" else None
        for slot in self._free:
            handle.clear(slot)

    @property
    def slots(self) -> int:
        """How many adapters can be resident at once."""
        return self._handle.slots

    @property
    def stats(self) -> BankStats:
        """Hits, misses and evictions so far, residents and pinned keys now."""
        with self._changed:
            return replace(self._stats, resident=len(self._slot_of), pinned=len(self._pins))

    def resident(self) -> dict[Hashable, int]:
        """Key → slot, least recently used first."""
        with self._changed:
            return dict(self._slot_of)

    def acquire(
        self,
        key: Hashable | None,
        load: Callable[[], AdapterState],
        *,
        waiting: Callable[[], None] | None = None,
    ) -> int:
        """Make an adapter resident, pin it once more and return its slot; ``load`` runs on a miss only.

        Without ``waiting`` nobody waits for a slot. With it the caller stands in line for one, and it is called there
        time and again, to end the waiting by an exception.

        Raises:
            BankFull: it is not resident and every slot is pinned or being filled.
            StateMismatch: it does not fit the model; whatever was resident stays so.
        """
        if key is None:
            return 0
        with self._changed:
            if not self._take_turn(key, waiting):
                self._stats = replace(self._stats, hits=self._stats.hits + 1)
                return self._pin(key)
            self._begin_load(key)
        return self._load(key, load)

    def prefetch(self, key: Hashable, load: Callable[[], AdapterState]) -> bool:
        """Make an adapter resident for whoever comes next, if there is a slot that nobody has; whether it was done.

        Raises:
            StateMismatch: it does not fit the model.
        """
        with self._changed:
            known = key in self._slot_of or key in self._loading
            if known or self._line or len(self._free) <= self._promised:
                return False
            self._begin_load(key)
        self._load(key, load)
        self.release(key)
        return True

    def release(self, key: Hashable | None) -> None:
        """Take one pin off; a key without pins stays resident until its slot is needed.

        Raises:
            KeyError: the key is not pinned.
        """
        if key is None:
            return
        with self._changed:
            self._pins[key] -= 1
            if self._pins[key] == 0:
                del self._pins[key]
                self._changed.notify_all()

    @contextmanager
    def pinned(self, key: Hashable | None, load: Callable[[], AdapterState]) -> Iterator[int]:
        """`acquire` for the length of a block; yields the slot."""
        slot = self.acquire(key, load)
        try:
            yield slot
        finally:
            self.release(key)

    def _pin(self, key: Hashable) -> int:
        self._slot_of.move_to_end(key)
        self._pins[key] = self._pins.get(key, 0) + 1
        return self._slot_of[key]

    # -- who waits for whom; all under the lock --------------------------------------------------

    def _take_turn(self, key: Hashable, waiting: Callable[[], None] | None) -> bool:
        """Wait until the key can be pinned, or loaded because there is a slot for it; whether it is to be loaded."""
        me = _Waiter(key)
        self._line.append(me)
        try:
            while not (self._may_load(me) or self._may_pin(me)):
                if key not in self._loading:
                    if waiting is None:
                        raise BankFull(f"all {self.slots} adapter slots are in use by requests in flight")
                    self._count_wait(me)
                self._changed.wait(_LOOK_S)
                if waiting is not None:
                    waiting()
            return key not in self._slot_of
        finally:
            self._line.remove(me)
            self._changed.notify_all()  # the next in line may be the first now

    def _count_wait(self, me: _Waiter) -> None:
        if not me.counted:
            me.counted = True
            self._stats = replace(self._stats, waits=self._stats.waits + 1)

    def _may_pin(self, me: _Waiter) -> bool:
        """Whether the key is resident and neither its slot is promised nor somebody waits for it to be let go."""
        if me.key not in self._slot_of:
            return False
        if me.key not in self._pins and self._vacant() <= self._promised:
            return False
        first = self._first()
        return first is None or self._makes_way(first) != me.key

    def _may_load(self, me: _Waiter) -> bool:
        """Whether the key is nowhere, its turn has come, and there is a slot for it."""
        return me is self._first() and self._vacant() > self._promised

    def _first(self) -> _Waiter | None:
        """The first in line of those who need a slot, not of those whose adapter others bring."""
        return next(
            (w for w in self._line if w.key not in self._slot_of and w.key not in self._loading), None
        )

    def _makes_way(self, first: _Waiter) -> Hashable | None:
        if first.makes_way not in self._slot_of and time.monotonic() - first.since >= PATIENCE_S:
            first.makes_way = next(iter(self._slot_of), None)
        return first.makes_way

    def _vacant(self) -> int:
        """Slots that are free, or whose adapter nobody has pinned."""
        return len(self._free) + len(self._slot_of) - len(self._pins)

    # -- loading ---------------------------------------------------------------------------------

    def _begin_load(self, key: Hashable) -> None:
        self._loading.add(key)
        self._promised += 1

    def _load(self, key: Hashable, load: Callable[[], AdapterState]) -> int:
        """Load before evicting: an adapter that cannot be had must not cost another its place."""
        slot = None
        try:
            state = load()
            self._handle.check(state)
            with self._changed:
                slot = self._take_slot()
                self._promised -= 1
            self._write(state, slot)
        except BaseException:  # as when memory runs out: the slot is then free still
            with self._changed:
                if slot is None:
                    self._promised -= 1
                else:
                    self._free.append(slot)
                self._end_load(key)
            raise
        with self._changed:
            self._slot_of[key] = slot
            self._stats = replace(self._stats, misses=self._stats.misses + 1)
            self._end_load(key)
            return self._pin(key)

    def _end_load(self, key: Hashable) -> None:
        self._loading.discard(key)
        self._changed.notify_all()

    def _take_slot(self) -> int:
        """A slot that was promised: a free one, or that of the least recently used adapter that nobody has pinned."""
        if not self._free:
            victim = next(key for key in self._slot_of if key not in self._pins)
            self._free.append(self._slot_of.pop(victim))
            self._stats = replace(self._stats, evictions=self._stats.evictions + 1)
        return self._free.pop()

    def _write(self, state: AdapterState, slot: int) -> None:
        if self._stream is None:
            self._handle.load_state(state, slot)
            return
        with torch.cuda.stream(self._stream):
            self._handle.load_state(state, slot)
        self._stream.synchronize()
