"""Whether this gateway can take work and have it done."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict
from redis.exceptions import RedisError, ResponseError

from contract.errors import BlobError
from contract.keys import PROBE
from contract.queue import open_queue, workers_taking
from service.gateway import Gateway

PROBE_KEPT_S = 60


class Check(BaseModel):
    """One thing that must work. `detail` says what is wrong, to an operator."""

    model_config = ConfigDict(frozen=True)

    ok: bool
    detail: str = ""


class Readiness(BaseModel):
    """Ready when every check is ok."""

    model_config = ConfigDict(frozen=True)

    ready: bool
    gateway: Check
    redis: Check
    storage: Check
    workers: Check


def check(gateway: Gateway) -> Readiness:
    """Ask everything that a summary needs."""
    checks = {
        "gateway": _gateway(gateway),
        "redis": _redis(gateway),
        "storage": _storage(gateway),
        "workers": Check(ok=False, detail="unknown without Redis"),
    }
    if checks["redis"].ok:
        checks["workers"] = _workers(gateway)
    return Readiness(ready=all(found.ok for found in checks.values()), **checks)


def _gateway(gateway: Gateway) -> Check:
    return Check(ok=False, detail="is shutting down") if gateway.draining.is_set() else Check(ok=True)


def _redis(gateway: Gateway) -> Check:
    """A write: one that is full, or a replica, answers and takes nothing."""
    try:
        gateway.probe.set(PROBE, b"", ex=PROBE_KEPT_S)
    except ResponseError as error:
        return Check(ok=False, detail=f"takes no writes ({type(error).__name__})")
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
        taking = workers_taking(open_queue(gateway.probe))
    except RedisError as error:
        return Check(ok=False, detail=f"unknown ({type(error).__name__})")
    return Check(ok=taking > 0, detail=f"{taking} take work")
