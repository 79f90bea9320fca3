"""Removes what nobody will ask for again: expired summaries with their videos, and videos without one."""

from __future__ import annotations

import asyncio
import logging

from redis.exceptions import RedisError
from rq import Queue
from starlette.concurrency import run_in_threadpool

from contract.blobs import BlobStore
from contract.ids import is_id
from contract.keys import SWEPT
from contract.repair import Repaired, repair
from contract.store import SummaryStore
from service.ownership import Ownership

log = logging.getLogger(__name__)

BATCH = 100


class Janitor:
    """Any number of gateways may sweep at once: every removal is one that can be repeated."""

    def __init__(
        self, store: SummaryStore, blobs: BlobStore, queue: Queue, *, orphan_s: float, repair_s: int
    ) -> None:
        """A video is durable before its record is written: a young one, up to `orphan_s`, may yet get a record."""
        self._store, self._blobs, self._queue = store, blobs, queue
        self._orphan_s, self._repair_s = orphan_s, repair_s
        self._ownership = Ownership(queue.connection, store, blobs)

    async def run(self, pause_s: float) -> None:
        """Sweep until cancelled."""
        while True:
            try:
                await run_in_threadpool(self.sweep)
                await run_in_threadpool(self.repair)
            except RedisError as error:
                log.warning("no sweep while Redis is out of reach: %s", error)
            except Exception:  # whatever it was: without sweeps the disk fills up
                log.exception("the sweep failed; it is tried again")
            await asyncio.sleep(pause_s)

    def sweep(self) -> None:
        """One pass. Raises RedisError, and OSError of the disk."""
        while expired := self._store.expire_due(BATCH):
            for blob_key in expired:
                self._blobs.delete(blob_key)
        if not self._ownership.holds():
            return
        self._blobs.discard_partial(older_than_s=self._orphan_s)
        videos = filter(is_id, self._blobs.keys(older_than_s=self._orphan_s))
        for key in self._store.without_record(videos):
            if self._blobs.delete(key):
                log.info("removed video %s, which belongs to no summary", key)

    def repair(self) -> None:
        """The daily sweep, unless a gateway has done it since. Raises RedisError."""
        redis = self._queue.connection
        if not redis.set(SWEPT, b"", nx=True, ex=self._repair_s):
            return
        try:
            repaired = repair(redis, self._queue)
        except BaseException:
            redis.delete(SWEPT)  # it is tried again at the next sweep
            raise
        if repaired != Repaired():
            log.warning("the daily sweep put right what it found: %s", repaired)
