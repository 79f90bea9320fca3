"""A fixed number of adapters resident beside the model, exchanged by least recent use.

Slot 0 stands for no adapter and costs nothing. A slot is pinned as long as any request in flight uses it and
is never written meanwhile, so that a request keeps the generation it began with; new versions are new keys.

Adapters are loaded and copied on the caller's thread while others use the model: no request reads a slot that
is not ready, and what a decode step multiplies of it has weight zero. On a GPU the copy runs on a stream of its
own. One key is loaded once, however many callers wait for it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from threading import Condition

import torch

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
        self._loading: set[Hashable] = set()
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

    def acquire(self, key: Hashable | None, load: Callable[[], AdapterState]) -> int:
        """Make an adapter resident, pin it once more and return its slot; ``load`` runs on a miss only.

        Raises:
            BankFull: it is not resident and every slot is pinned or being filled.
            StateMismatch: it does not fit the model; whatever was resident stays so.
        """
        if key is None:
            return 0
        with self._changed:
            while key in self._loading:
                self._changed.wait()
            if key in self._slot_of:
                self._stats = replace(self._stats, hits=self._stats.hits + 1)
                return self._pin(key)
            self._require_room()
            self._loading.add(key)
        try:
            return self._admit(key, load)
        finally:
            with self._changed:
                self._loading.discard(key)
                self._changed.notify_all()

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

    def _admit(self, key: Hashable, load: Callable[[], AdapterState]) -> int:
        """Load before evicting: an adapter that cannot be had must not cost another its place."""
        state = load()
        self._handle.check(state)
        with self._changed:
            slot = self._take_slot()
        try:
            self._write(state, slot)
        except BaseException:  # as when memory runs out: the slot is then free still
            with self._changed:
                self._free.append(slot)
            raise
        with self._changed:
            self._slot_of[key] = slot
            self._stats = replace(self._stats, misses=self._stats.misses + 1)
            return self._pin(key)

    def _write(self, state: AdapterState, slot: int) -> None:
        if self._stream is None:
            self._handle.load_state(state, slot)
            return
        with torch.cuda.stream(self._stream):
            self._handle.load_state(state, slot)
        self._stream.synchronize()

    def _take_slot(self) -> int:
        if not self._free:
            self._require_room()
            victim = next(key for key in self._slot_of if key not in self._pins)
            self._free.append(self._slot_of.pop(victim))
            self._stats = replace(self._stats, evictions=self._stats.evictions + 1)
        return self._free.pop()

    def _require_room(self) -> None:
        if not self._free and all(key in self._pins for key in self._slot_of):
            raise BankFull(f"all {self.slots} adapter slots are in use by requests in flight")
