"""A fixed number of adapters resident beside the model, exchanged by least recent use.

Slot 0 stands for no adapter and costs nothing. A slot is pinned as long as any request in flight uses it and
is never written meanwhile, so that a request keeps the generation it began with; new versions are new keys.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from threading import Lock

from milora.errors import BankFull
from milora.model import MiloraModel
from milora.state import AdapterState


@dataclass(frozen=True)
class BankStats:
    """Counts since the bank was made; ``resident`` and ``pinned`` are as of now."""

    hits: int = 0
    misses: int = 0
    evictions: int = 0
    resident: int = 0
    pinned: int = 0


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
        self._stats = BankStats()
        self._lock = Lock()
        for slot in self._free:
            handle.clear(slot)

    @property
    def slots(self) -> int:
        """How many adapters can be resident at once."""
        return self._handle.slots

    @property
    def stats(self) -> BankStats:
        """Hits, misses and evictions so far, residents and pinned keys now."""
        with self._lock:
            return replace(self._stats, resident=len(self._slot_of), pinned=len(self._pins))

    def resident(self) -> dict[Hashable, int]:
        """Key → slot, least recently used first."""
        with self._lock:
            return dict(self._slot_of)

    def acquire(self, key: Hashable | None, load: Callable[[], AdapterState]) -> int:
        """Make an adapter resident, pin it once more and return its slot; ``load`` runs on a miss only.

        Raises:
            BankFull: it is not resident and every slot is pinned.
            StateMismatch: it does not fit the model; whatever was resident stays so.
        """
        if key is None:
            return 0
        with self._lock:
            if key in self._slot_of:
                self._slot_of.move_to_end(key)
                self._stats = replace(self._stats, hits=self._stats.hits + 1)
            else:
                self._admit(key, load)
            self._pins[key] = self._pins.get(key, 0) + 1
            return self._slot_of[key]

    def release(self, key: Hashable | None) -> None:
        """Take one pin off; a key without pins stays resident until its slot is needed.

        Raises:
            KeyError: the key is not pinned.
        """
        if key is None:
            return
        with self._lock:
            self._pins[key] -= 1
            if self._pins[key] == 0:
                del self._pins[key]

    @contextmanager
    def pinned(self, key: Hashable | None, load: Callable[[], AdapterState]) -> Iterator[int]:
        """`acquire` for the length of a block; yields the slot."""
        slot = self.acquire(key, load)
        try:
            yield slot
        finally:
            self.release(key)

    def _admit(self, key: Hashable, load: Callable[[], AdapterState]) -> None:
        """Load before evicting: an adapter that cannot be had must not cost another its place."""
        victim = None if self._free else self._least_recently_used()
        state = load()
        self._handle.check(state)
        if victim is not None:
            self._free.append(self._slot_of.pop(victim))
            self._stats = replace(self._stats, evictions=self._stats.evictions + 1)
        slot = self._free[-1]
        self._handle.load_state(state, slot)  # may run out of memory: the slot is then free still
        self._slot_of[key] = self._free.pop()
        self._stats = replace(self._stats, misses=self._stats.misses + 1)

    def _least_recently_used(self) -> Hashable:
        for key in self._slot_of:
            if key not in self._pins:
                return key
        raise BankFull(f"all {self.slots} adapter slots are in use by requests in flight")
