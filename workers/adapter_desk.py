"""Adapters from disk over host memory to a slot: found, verified, made resident, pinned while a request uses them.

A version that proves unsound while it is loaded is set aside by name; the newest sound one goes on serving.
A request keeps the version that it began with, whatever is published meanwhile.
"""

import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from contract.errors import Code, JobFailure
from milora import AdapterBank, AdapterState, MiloraError
from model_store.adapters import load_adapter
from model_store.backbone import Backbone
from model_store.errors import AdapterNotFound, AdapterRefused
from model_store.manifest import GENERAL_DOMAIN, WEIGHTS_FILE
from model_store.registry import AdapterEntry, AdapterRegistry
from workers.control import JobControl
from workers.domain_marks import DomainMarks
from workers.expert_room import LANGUAGE_MODEL, adapter_state
from workers.host_tier import HostTier
from workers.metrics import WorkerMetrics

log = logging.getLogger("visum.adapters")

Key = tuple[str, int, str]


@dataclass(frozen=True)
class Prepared:
    """One verified adapter in host memory, laid out for a slot."""

    entry: AdapterEntry
    key: Key
    state: AdapterState

    @property
    def bytes(self) -> int:
        return self.state.bytes


@dataclass(frozen=True)
class PinnedAdapter:
    """What a request uses: nothing at all for the frozen backbone (slot 0).

    `fusion_alpha` is None where no two groups are fused. `vision` names the generation of the experts that look at
    the video, None where none do.
    """

    slot: int = 0
    domain: str | None = None
    version: int | None = None
    fusion_alpha: float | None = None
    vision: Key | None = None


class AdapterDesk:
    """Hands out pinned adapters to requests. Thread-safe; disk and copies are paid on the caller's thread.

    `marks` are what `auto` recognizes the domains by.
    """

    def __init__(
        self,
        registry: AdapterRegistry,
        backbone: Backbone,
        bank: AdapterBank,
        metrics: WorkerMetrics,
        *,
        host_bytes: int,
        recognition_bytes: int,
    ) -> None:
        self._registry = registry
        self._fingerprint = backbone.fingerprint
        self._shapes = backbone.module_shapes
        self._dtype = backbone.dtype
        self._on_gpu = backbone.device.type == "cuda"
        self._bank = bank
        self._metrics = metrics
        self._host: HostTier[Prepared] = HostTier(host_bytes)
        self.marks = DomainMarks(
            registry, recognition_bytes, lambda entry, refusal: self._set_aside(entry, refusal.reason, None)
        )
        self._ahead = ThreadPoolExecutor(1, thread_name_prefix="visum-prefetch")

    @property
    def host_bytes(self) -> int:
        """Memory of the adapters that are held ready on the host, and of the marks."""
        return self._host.bytes + self.marks.bytes

    def prefetch(self, domain: str, version: int | None) -> None:
        """Bring an adapter up while its request is not there yet: to the host, and into a slot if one is free.

        It evicts nobody: what was brought up ahead for other requests would go first. Never an error: whatever is wrong
        shows when the request asks for it.
        """
        if domain != GENERAL_DOMAIN:
            self._ahead.submit(self._bring_up, domain, version)

    def _bring_up(self, domain: str, version: int | None) -> None:
        try:
            adapter = self._prepare(domain, version)
            if self._bank.prefetch(adapter.key, lambda: adapter.state):
                self._count_load(adapter)
        except (JobFailure, MiloraError, torch.OutOfMemoryError) as reason:
            log.debug("adapter %s was not prefetched: %s", domain, reason)
        except Exception:
            log.exception("prefetching adapter %s failed", domain)

    @contextmanager
    def pinned(self, domain: str, version: int | None, control: JobControl) -> Iterator[PinnedAdapter]:
        """The adapter of a domain (the newest sound version unless one is named), resident for the block.

        Raises:
            JobFailure: adapter.unavailable or adapter.refused.
            Stopped: the job was stopped while it waited for a slot.
        """
        if domain == GENERAL_DOMAIN:
            yield PinnedAdapter()
            return
        adapter, slot = self._acquire(domain, version, control)
        try:
            state = adapter.state
            fusion_alpha = state.fusion_alpha if state.fused else None
            vision = (
                adapter.key if any(not name.startswith(LANGUAGE_MODEL) for name in state.layers) else None
            )
            yield PinnedAdapter(slot, domain, adapter.entry.version, fusion_alpha, vision)
        finally:
            self._bank.release(adapter.key)

    def sound(self, domain: str) -> bool:
        """Whether a domain that was recognized has an adapter to answer with; it is then in host memory."""
        try:
            self._prepare(domain, None)
        except JobFailure as failure:
            log.warning("domain %s is left out of routing: %s", domain, failure.__cause__)
            return False
        return True

    def _acquire(self, domain: str, version: int | None, control: JobControl) -> tuple[Prepared, int]:
        while True:
            adapter = self._prepare(domain, version)
            try:
                return adapter, self._take_slot(adapter, control)
            except MiloraError as mismatch:
                self._set_aside(adapter.entry, f"it does not fit the worker: {mismatch}", version)

    def _take_slot(self, adapter: Prepared, control: JobControl) -> int:
        loaded = []

        def load() -> AdapterState:
            loaded.append(adapter)
            return adapter.state

        slot = self._bank.acquire(adapter.key, load, waiting=control.check)
        if loaded:
            self._count_load(adapter)
        else:
            self._metrics.adapter_hits.inc()
        return slot

    def _count_load(self, adapter: Prepared) -> None:
        self._metrics.adapter_loads.labels(adapter.key[0]).inc()
        log.info("adapter %s/%d is resident", adapter.key[0], adapter.key[1])

    def _prepare(self, domain: str, version: int | None) -> Prepared:
        """The newest sound version, or the one asked for, in host memory."""
        while True:
            entry = self._find(domain, version)
            try:
                return self._host.get(_key(entry), lambda entry=entry: self._load(entry))
            except AdapterRefused as refusal:
                self._set_aside(entry, refusal.reason, version)
            except MiloraError as mismatch:
                self._set_aside(entry, str(mismatch), version)

    def _load(self, entry: AdapterEntry) -> Prepared:
        """Read and verify an adapter, and lay it out for its slot."""
        loaded = load_adapter(entry, backbone_fingerprint=self._fingerprint, module_shapes=self._shapes)
        state = adapter_state(loaded).staged(self._dtype, pinned=self._on_gpu)
        return Prepared(entry, _key(entry), state)

    def _find(self, domain: str, version: int | None) -> AdapterEntry:
        try:
            return self._registry.get(domain, version)
        except AdapterNotFound as missing:
            raise JobFailure(Code.ADAPTER_UNAVAILABLE, f"{missing}.") from missing
        except AdapterRefused as refusal:
            raise JobFailure(Code.ADAPTER_REFUSED, f"{refusal}.") from refusal

    def _set_aside(self, entry: AdapterEntry, reason: str, version: int | None) -> None:
        """Refuse a version for this process. Only a request that asked for this very version fails with it."""
        refusal = self._registry.refuse(entry, reason)
        self._metrics.adapters_refused.labels(entry.domain).inc()
        log.error("%s", refusal)
        if version is not None:
            raise JobFailure(Code.ADAPTER_REFUSED, f"{refusal}.") from refusal


def _key(entry: AdapterEntry) -> Key:
    return (entry.domain, entry.version, entry.manifest.files[WEIGHTS_FILE])
