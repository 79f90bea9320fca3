"""Which domains a summary may be asked for: `auto`, the backbone's own, and one per usable adapter."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from pathlib import Path

from redis import Redis

from contract.records import AUTO_DOMAIN
from contract.serving import ServedBackbone, served_backbone
from model_store.errors import AdapterNotFound, AdapterRefused
from model_store.manifest import GENERAL_DOMAIN
from model_store.registry import AdapterEntry, AdapterRegistry
from model_store.signatures import NOBODY, TrustedKeys
from service.problems import InvalidField

log = logging.getLogger(__name__)


class DomainCatalog:
    """The registry of adapters, seen with the backbone in service: others' adapters are set aside."""

    def __init__(self, redis: Redis, roots: Sequence[Path], trusted: TrustedKeys = NOBODY) -> None:
        self._redis = redis
        self._roots = tuple(roots)
        self._trusted = trusted
        self._lock = threading.Lock()
        self._fingerprint: str | None = None
        self._registry = AdapterRegistry(self._roots, trusted=trusted)

    def backbone(self) -> ServedBackbone | None:
        """The backbone in service; None before a worker has said. Raises RedisError."""
        return served_backbone(self._redis)

    def registry(self) -> AdapterRegistry:
        """The adapters that go with the backbone in service. Raises RedisError."""
        backbone = self.backbone()
        fingerprint = None if backbone is None else backbone.fingerprint
        with self._lock:
            if fingerprint != self._fingerprint:
                self._registry = AdapterRegistry(
                    self._roots, backbone_fingerprint=fingerprint, trusted=self._trusted
                )
                self._fingerprint = fingerprint
            return self._registry

    def names(self) -> list[str]:
        """Every domain that may be asked for."""
        return [AUTO_DOMAIN, GENERAL_DOMAIN, *self.registry().domains()]

    def check(self, domain: str) -> None:
        """Raises InvalidField for a domain that can't be served, saying which can."""
        names = self.names()
        if domain not in names:
            raise InvalidField("domain", f"there is no domain '{domain[:64]}'; there are {', '.join(names)}")

    def check_version(self, domain: str, version: int) -> None:
        """Raises InvalidField where the domain has no such adapter version."""
        if domain in (AUTO_DOMAIN, GENERAL_DOMAIN):
            raise InvalidField("adapter_version", f"needs a domain with adapters, and '{domain}' has none")
        try:
            self.registry().get(domain, version)
        except AdapterNotFound as missing:
            raise InvalidField("adapter_version", str(missing)) from missing
        except AdapterRefused as refusal:
            log.warning("%s", refusal)
            raise InvalidField("adapter_version", refusal.for_tenants) from refusal

    def versions(self) -> dict[str, list[AdapterEntry]]:
        """The usable versions of every domain that has any, oldest first, as one look finds them."""
        found: dict[str, list[AdapterEntry]] = {}
        for entry in self.registry().entries():
            found.setdefault(entry.domain, []).append(entry)
        return found
