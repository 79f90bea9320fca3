"""Whether this gateway can take work and have it done."""

from __future__ import annotations

import asyncio
import time

from anyio import CapacityLimiter, to_thread
from pydantic import BaseModel, ConfigDict
from redis import Redis
from redis.exceptions import RedisError, ResponseError

from contract.blobs import BlobStore
from contract.errors import BlobError
from contract.keys import PROBE
from contract.queue import open_queue, workers_taking

PROBE_KEPT_S = 60
TOLD_S = 1.0


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


class Lookout:
    """Looks after everything that a summary needs, when somebody asks.

    Looking writes to Redis and to the disk, and anybody may ask: so what was seen is told for a second, and one look is
    taken at a time, on a thread that nothing else can keep busy.
    """

    def __init__(self, probe: Redis, blobs: BlobStore, *, min_free_bytes: int) -> None:
        """`probe` asks once and soon gives up."""
        self._probe, self._blobs, self._min_free_bytes = probe, blobs, min_free_bytes
        self._thread = CapacityLimiter(1)
        self._look: asyncio.Task[dict[str, Check]] | None = None
        self._old_at = 0.0
        self.redis_answers = False  # as it was last seen, even where it takes no writes

    async def readiness(self, *, draining: bool) -> Readiness:
        """What was seen in the last second, or is seen now. That the gateway is ending is told at once."""
        if self._look is None or (self._look.done() and time.monotonic() >= self._old_at):
            self._look = asyncio.create_task(self._take_a_look())
        checks = await asyncio.shield(self._look)  # others wait for it too
        gateway = Check(ok=False, detail="is shutting down") if draining else Check(ok=True)
        ready = gateway.ok and all(found.ok for found in checks.values())
        return Readiness(ready=ready, gateway=gateway, **checks)

    async def _take_a_look(self) -> dict[str, Check]:
        try:
            return await to_thread.run_sync(self._checks, limiter=self._thread)
        finally:
            self._old_at = time.monotonic() + TOLD_S

    def _checks(self) -> dict[str, Check]:
        redis = self._redis()
        workers = self._workers() if redis.ok else Check(ok=False, detail="unknown without Redis")
        return {"redis": redis, "storage": self._storage(), "workers": workers}

    def _redis(self) -> Check:
        """A write: one that is full, or a replica, answers and takes nothing."""
        try:
            self._probe.set(PROBE, b"", ex=PROBE_KEPT_S)
        except ResponseError as error:
            self.redis_answers = True
            return Check(ok=False, detail=f"takes no writes ({type(error).__name__})")
        except RedisError as error:
            self.redis_answers = False
            return Check(ok=False, detail=f"does not answer ({type(error).__name__})")
        self.redis_answers = True
        return Check(ok=True)

    def _storage(self) -> Check:
        try:
            self._blobs.check()
        except (BlobError, OSError) as error:
            return Check(ok=False, detail=f"can't be written ({type(error).__name__})")
        free = self._blobs.free_bytes()
        if free is not None and free < self._min_free_bytes:
            return Check(ok=False, detail=f"{free} bytes free, under the floor of VISUM_MIN_FREE_BYTES")
        return Check(ok=True)

    def _workers(self) -> Check:
        try:
            taking = workers_taking(open_queue(self._probe))
        except RedisError as error:
            return Check(ok=False, detail=f"unknown ({type(error).__name__})")
        return Check(ok=taking > 0, detail=f"{taking} take work")
