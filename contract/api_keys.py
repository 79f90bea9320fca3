"""API keys in Redis: who may talk to the gateways, and as which tenant.

A key reads `vsm_<id>_<secret>`. The id finds it and is no secret; of the secret only its SHA-256 is kept.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING

from pydantic import AwareDatetime, ValidationError

from contract import keys
from contract.part import Part
from contract.tenants import is_tenant

if TYPE_CHECKING:
    from redis import Redis

_ID_BYTES, _SECRET_BYTES = 6, 32
_TOKEN = re.compile(r"vsm_([0-9a-f]{12})_([0-9a-f]{64})", re.ASCII)


class Scope(StrEnum):
    """What a key may do. None of them includes another."""

    SUMMARIES = "summaries"  # submit, follow, list and delete the tenant's own summaries; see the domains
    METRICS = "metrics"  # read /metrics
    ADMIN = (
        "admin"  # see what is for whoever runs the service: why it is not ready, which adapters are refused
    )


class ApiKey(Part):
    """One key as it is kept. `digest` is the secret's SHA-256, hexadecimal."""

    id: str
    tenant: str
    name: str = ""
    scopes: tuple[Scope, ...] = (Scope.SUMMARIES,)
    created_at: AwareDatetime
    digest: str


class ApiKeys:
    """The keys that every gateway on this Redis accepts. `redis` must hand out bytes."""

    def __init__(self, redis: Redis, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._redis = redis
        self._now = clock

    def create(
        self, tenant: str, *, scopes: Sequence[Scope] = (Scope.SUMMARIES,), name: str = ""
    ) -> tuple[ApiKey, str]:
        """A new key, and its token: the one time that the secret is to be had.

        Raises:
            ValueError: `tenant` can't be a tenant's name, or there are no scopes.
        """
        if not is_tenant(tenant):
            raise ValueError(f"{tenant[:80]!r} is no tenant: 1 to 63 of a-z, 0-9 and -, not - first")
        if not scopes:
            raise ValueError("a key without a scope may do nothing")
        key_id, secret = secrets.token_hex(_ID_BYTES), secrets.token_hex(_SECRET_BYTES)
        key = ApiKey(
            id=key_id,
            tenant=tenant,
            name=name,
            scopes=tuple(dict.fromkeys(scopes)),
            created_at=self._now(),
            digest=_digest(secret),
        )
        if not self._redis.hsetnx(keys.API_KEYS, key.id, key.model_dump_json()):
            raise RuntimeError(f"there is a key {key.id} already")  # once in 2^48 tries
        return key, f"vsm_{key_id}_{secret}"

    def find(self, token: str) -> ApiKey | None:
        """The key that a token is; None if it is none, or was revoked."""
        parts = _TOKEN.fullmatch(token)
        if parts is None:
            return None
        key_id, secret = parts.groups()
        key = _read(self._redis.hget(keys.API_KEYS, key_id))
        if key is None or not hmac.compare_digest(key.digest, _digest(secret)):
            return None
        return key

    def all(self) -> list[ApiKey]:
        """Every key, oldest first. One that can't be read lets nobody in and is left out."""
        found = (_read(raw) for raw in self._redis.hvals(keys.API_KEYS))
        return sorted((key for key in found if key is not None), key=lambda key: (key.created_at, key.id))

    def revoke(self, key_id: str) -> bool:
        """From now on the key is refused; False when there was none."""
        return bool(self._redis.hdel(keys.API_KEYS, key_id))


def _digest(secret: str) -> str:
    """A secret of 256 random bits can't be guessed, however fast the hash: a slow one would only cost us."""
    return hashlib.sha256(secret.encode()).hexdigest()


def _read(raw: bytes | None) -> ApiKey | None:
    try:
        return None if raw is None else ApiKey.model_validate_json(raw)
    except ValidationError:
        return None
