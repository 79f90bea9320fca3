"""Whether this gateway can take work and have it done."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict
from redis.exceptions import RedisError

from contract.errors import BlobError
from contract.queue import live_workers
from service.gateway import Gateway


class Check(BaseModel):
    """One thing that must work. `detail` says what is wrong, to an operator."""

    model_config = ConfigDict(frozen=True)

    ok: bool
    detail: str = ""


class Readiness(BaseModel):
    """Ready when every check is ok."""

    model_config = ConfigDict(frozen=True)

    ready: bool
    redis: Check
    storage: Check
    workers: Check


def check(gateway: Gateway) -> Readiness:
    """Ask everything that a summary needs."""
    redis, storage, workers = (
        _redis(gateway),
        _storage(gateway),
        Check(ok=False, detail="unknown without Redis"),
    )
    if redis.ok:
        workers = _workers(gateway)
    return Readiness(
        ready=redis.ok and storage.ok and workers.ok, redis=redis, storage=storage, workers=workers
    )


def _redis(gateway: Gateway) -> Check:
    try:
        gateway.redis.ping()
    except RedisError as error:
        return Check(ok=False, detail=f"does not answer ({type(error).__name__})")
    return Check(ok=True)


def _storage(gateway: Gateway) -> Check:
    try:
        gateway.blobs.check()
    except (BlobError, OSError) as error:
        return Check(ok=False, detail=f"can't be written ({type(error).__name__})")
    free = gateway.blobs.free_bytes()
    if free is not None and free < gateway.settings.min_free_bytes:
        return Check(ok=False, detail=f"{free} bytes free, under the floor of VISUM_MIN_FREE_BYTES")
    return Check(ok=True)


def _workers(gateway: Gateway) -> Check:
    try:
        alive = live_workers(gateway.queue)
    except RedisError as error:
        return Check(ok=False, detail=f"unknown ({type(error).__name__})")
    return Check(ok=alive > 0, detail=f"{alive} alive")
