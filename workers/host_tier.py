"""Adapters in host memory: the tier between the device's slots and the disk.

device   the slots of the `AdapterBank`; exchanged in a copy
host     verified and laid out for that copy, within a budget of bytes; least recently used go first
disk     the model store; read and verified on the way up
"""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from typing import Generic, Protocol, TypeVar


class Sized(Protocol):
    """What can be held: it knows its bytes."""

    @property
    def bytes(self) -> int: ...


V = TypeVar("V", bound=Sized)


class HostTier(Generic[V]):
    """At most `budget` bytes of loaded values, the newest always among them. Thread-safe.

    A key that several threads want is loaded once; the others wait for that load and share its outcome.
    """

    def __init__(self, budget: int) -> None:
        self._budget = budget
        self._held: OrderedDict[Hashable, V] = OrderedDict()
        self._bytes = 0
        self._loading: dict[Hashable, Future[V]] = {}
        self._lock = threading.Lock()

    @property
    def bytes(self) -> int:
        """How much is held now."""
        return self._bytes

    def get(self, key: Hashable, load: Callable[[], V]) -> V:
        """The value of a key, loaded if it is not held. Raises whatever `load` raises."""
        with self._lock:
            if key in self._held:
                self._held.move_to_end(key)
                return self._held[key]
            flight = self._loading.get(key)
            if flight is None:
                mine = self._loading[key] = Future()
        if flight is not None:
            return flight.result()
        try:
            value = load()
        except BaseException as failure:
            with self._lock:
                del self._loading[key]
            mine.set_exception(failure)
            raise
        with self._lock:
            del self._loading[key]
            self._hold(key, value)
        mine.set_result(value)
        return value

    def _hold(self, key: Hashable, value: V) -> None:
        self._held[key] = value
        self._bytes += value.bytes
        while self._bytes > self._budget and len(self._held) > 1:
            self._bytes -= self._held.popitem(last=False)[1].bytes
