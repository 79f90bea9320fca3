"""What every domain looks like to the frozen vision tower, for `auto`: read once, kept within a budget of bytes."""

import logging
import math
import threading
import time
from collections.abc import Callable, Iterator

from model_store.adapters import load_prototype
from model_store.errors import AdapterRefused
from model_store.manifest import ROUTER_FILE
from model_store.registry import AdapterEntry, AdapterRegistry
from workers.router import Mark

log = logging.getLogger("visum.adapters")

LOOK_AGAIN_S = 1.0
"""So old may the list of domains be that a video is compared with."""


class DomainMarks:
    """The marks of the newest sound versions. Thread-safe.

    Of an adapter nothing is read but its mark. One that is damaged costs the version, which goes to `refuse`. Marks
    that do not fit into `budget` bytes are read anew for every video: slower, and never more memory.
    """

    def __init__(
        self, registry: AdapterRegistry, budget: int, refuse: Callable[[AdapterEntry, AdapterRefused], None]
    ) -> None:
        self._registry, self._budget, self._refuse = registry, budget, refuse
        self._lock = threading.Lock()
        self._versions: dict[str, list[AdapterEntry]] = {}
        self._looked_at = -math.inf
        self._held: dict[str, Mark] = {}  # by the mark's sha256
        self._bytes = 0
        self._told = False

    @property
    def bytes(self) -> int:
        """How much is held now."""
        return self._bytes

    def __iter__(self) -> Iterator[tuple[str, Mark]]:
        """Every domain that has a mark, in order."""
        for domain, versions in self._listed().items():
            mark = self._newest(versions)
            if mark is not None:
                yield domain, mark

    def _listed(self) -> dict[str, list[AdapterEntry]]:
        """The sound versions of every domain, oldest first, as of a second ago at most."""
        with self._lock:
            if time.monotonic() - self._looked_at >= LOOK_AGAIN_S:
                self._versions = {}
                for entry in self._registry.entries():
                    self._versions.setdefault(entry.domain, []).append(entry)
                self._looked_at = time.monotonic()
                self._forget_replaced()
            return {domain: list(versions) for domain, versions in self._versions.items()}

    def _forget_replaced(self) -> None:
        current = {versions[-1].manifest.files.get(ROUTER_FILE) for versions in self._versions.values()}
        for sha256 in self._held.keys() - current:
            self._bytes -= self._held.pop(sha256).bytes

    def _newest(self, versions: list[AdapterEntry]) -> Mark | None:
        while versions:
            entry = versions.pop()
            try:
                return self._mark(entry)
            except AdapterRefused as refusal:
                self._refuse(entry, refusal)
                self._looked_at = -math.inf
        return None

    def _mark(self, entry: AdapterEntry) -> Mark | None:
        sha256 = entry.manifest.files.get(ROUTER_FILE)
        if sha256 is None:
            return None
        with self._lock:  # also while it is read: others want the same one
            if sha256 in self._held:
                return self._held[sha256]
            mark = Mark.of(load_prototype(entry))
            if self._bytes + mark.bytes <= self._budget:
                self._held[sha256] = mark
                self._bytes += mark.bytes
            elif not self._told:
                self._told = True
                log.warning(
                    "what `auto` recognizes domains by takes more than %d MiB, the rest is read anew for every video: "
                    "see VISUM_RECOGNITION_BYTES", self._budget >> 20,
                )  # fmt: skip
            return mark
