"""What the vision tower made of recent videos, so that a second question does not pay for it again."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from milora import GateRecord


@dataclass(frozen=True, eq=False)
class Seen:
    """One video as the language model reads it.

    tokens (N, H), one row per video token of the prompt; pooled (D,) the mean of the tower's features, float32 on
    the CPU; gates are those of the tower's layers, None without an adapter.
    """

    tokens: Tensor
    pooled: Tensor
    gates: GateRecord | None

    @property
    def bytes(self) -> int:
        return self.tokens.nbytes + self.pooled.nbytes


class VisionCache:
    """At most `budget` bytes of `Seen` videos, the least recently used ones go first. Thread-safe.

    A key says everything that the features depend on: the video's bytes, how frames were taken from it, and which
    generation of which spatial experts looked at them.
    """

    def __init__(self, budget: int) -> None:
        self._budget = budget
        self._seen: OrderedDict[Hashable, Seen] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()
        self.hits = self.misses = 0

    @property
    def bytes(self) -> int:
        """How much is held now."""
        return self._bytes

    def get(self, key: Hashable | None) -> Seen | None:
        if key is None:
            return None
        with self._lock:
            found = self._seen.get(key)
            if found is None:
                self.misses += 1
                return None
            self.hits += 1
            self._seen.move_to_end(key)
            return found

    def put(self, key: Hashable | None, seen: Seen) -> None:
        """Keep a video, if it fits at all."""
        if key is None or seen.bytes > self._budget:
            return
        with self._lock:
            before = self._seen.pop(key, None)
            self._seen[key] = seen
            self._bytes += seen.bytes - (before.bytes if before else 0)
            while self._bytes > self._budget:
                self._bytes -= self._seen.popitem(last=False)[1].bytes

    def forget(self, gone: Callable[[Any], bool]) -> int:
        """Let go of every video whose key is `gone`; how many those were."""
        with self._lock:
            keys = [key for key in self._seen if gone(key)]
            for key in keys:
                self._bytes -= self._seen.pop(key).bytes
        return len(keys)

    def clear(self) -> None:
        """Let everything go, as when memory is short."""
        with self._lock:
            self._seen.clear()
            self._bytes = 0
