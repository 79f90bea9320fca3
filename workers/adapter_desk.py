"""Adapters from disk to slot: found, verified, made resident, pinned while a request uses them.

A version that proves unsound while it is loaded is set aside by name; the newest sound one goes on serving.
A request keeps the version that it began with, whatever is published meanwhile.
"""

import logging
import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from contract.errors import Code, JobFailure
from milora import AdapterBank, AdapterState, BankFull, MiloraError
from model_store.adapters import load_adapter
from model_store.backbone import Backbone
from model_store.errors import AdapterNotFound, AdapterRefused
from model_store.manifest import GENERAL_DOMAIN, WEIGHTS_FILE
from model_store.registry import AdapterEntry, AdapterRegistry
from workers.control import JobControl
from workers.engine import Engine
from workers.expert_room import adapter_state
from workers.metrics import WorkerMetrics

log = logging.getLogger("visum.adapters")

Key = tuple[str, int, str]
_KEPT_STATES = 8
_FULL_RETRY_S = 0.05


@dataclass(frozen=True)
class Prepared:
    """One verified adapter on the CPU, ready for a slot. `prototype` is what its domain looks like, if it says so."""

    entry: AdapterEntry
    key: Key
    state: AdapterState
    prototype: dict[str, torch.Tensor] | None


@dataclass(frozen=True)
class PinnedAdapter:
    """What a request uses: nothing at all for the frozen backbone (slot 0).

    `fusion_alpha` is None where no two groups are fused.
    """

    slot: int = 0
    domain: str | None = None
    version: int | None = None
    fusion_alpha: float | None = None


class AdapterDesk:
    """Hands out pinned adapters to requests. Thread-safe; slots are only written on the engine's thread."""

    def __init__(
        self,
        registry: AdapterRegistry,
        backbone: Backbone,
        engine: Engine,
        bank: AdapterBank,
        metrics: WorkerMetrics,
    ) -> None:
        self._registry = registry
        self._fingerprint = backbone.fingerprint
        self._shapes = backbone.module_shapes
        self._engine = engine
        self._bank = bank
        self._metrics = metrics
        self._prepared: OrderedDict[Key, Prepared] = OrderedDict()
        self._prototypes: dict[Key, dict[str, torch.Tensor] | None] = {}
        self._lock = threading.Lock()

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
            yield PinnedAdapter(slot, domain, adapter.entry.version, fusion_alpha)
        finally:
            self._bank.release(adapter.key)

    def prototypes(self) -> dict[str, dict[str, torch.Tensor]]:
        """Mean (D,) and covariance (D, D) of the pooled vision features of every domain that has them, by its newest
        version."""
        found = {}
        for domain in self._registry.domains():
            try:
                prototype = self._prototype(domain)
            except JobFailure as failure:
                log.warning("domain %s is left out of routing: %s", domain, failure.message)
                continue
            if prototype is not None:
                found[domain] = prototype
        return found

    def _prototype(self, domain: str) -> dict[str, torch.Tensor] | None:
        entry = self._find(domain, None)
        if _key(entry) not in self._prototypes:
            entry = self._prepare(domain, None).entry
        return self._prototypes[_key(entry)]

    def _acquire(self, domain: str, version: int | None, control: JobControl) -> tuple[Prepared, int]:
        while True:
            adapter = self._prepare(domain, version)
            try:
                return adapter, self._engine.call(lambda adapter=adapter: self._take_slot(adapter))
            except BankFull:
                control.stop.wait(_FULL_RETRY_S)
                control.check()
            except MiloraError as mismatch:
                self._set_aside(adapter.entry, f"it does not fit the worker: {mismatch}", version)

    def _take_slot(self, adapter: Prepared) -> int:
        before = self._bank.stats
        slot = self._bank.acquire(adapter.key, lambda: adapter.state)
        after = self._bank.stats
        self._metrics.adapter_hits.inc(after.hits - before.hits)
        self._metrics.adapter_evictions.inc(after.evictions - before.evictions)
        if after.misses > before.misses:
            self._metrics.adapter_loads.labels(adapter.key[0]).inc()
            log.info("adapter %s/%d is resident in slot %d", adapter.key[0], adapter.key[1], slot)
        return slot

    def _prepare(self, domain: str, version: int | None) -> Prepared:
        """Read and verify an adapter, or take it from the few that are kept."""
        while True:
            entry = self._find(domain, version)
            with self._lock:
                kept = self._prepared.get(_key(entry))
                if kept is not None:
                    self._prepared.move_to_end(kept.key)
                    return kept
            try:
                loaded = load_adapter(
                    entry, backbone_fingerprint=self._fingerprint, module_shapes=self._shapes
                )
                return self._keep(Prepared(entry, _key(entry), adapter_state(loaded), loaded.prototype))
            except AdapterRefused as refusal:
                self._set_aside(entry, refusal.reason, version)
            except MiloraError as mismatch:
                self._set_aside(entry, str(mismatch), version)

    def _keep(self, adapter: Prepared) -> Prepared:
        with self._lock:
            self._prepared[adapter.key] = adapter
            self._prototypes[adapter.key] = adapter.prototype
            while len(self._prepared) > max(_KEPT_STATES, self._bank.slots):
                self._prepared.popitem(last=False)
        return adapter

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
