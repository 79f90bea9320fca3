"""Removes what nobody will ask for again: expired summaries with their videos, and videos without one."""

from __future__ import annotations

import asyncio
import logging

from redis.exceptions import RedisError
from starlette.concurrency import run_in_threadpool

from contract.blobs import BlobStore
from contract.ids import is_id
from contract.store import SummaryStore

log = logging.getLogger(__name__)

ORPHAN_S = 3600  # a video is durable before its record is written, so a young one may yet get a record
BATCH = 100


class Janitor:
    """Any number of gateways may sweep at once: every removal is one that can be repeated."""

    def __init__(self, store: SummaryStore, blobs: BlobStore) -> None:
        self._store, self._blobs = store, blobs

    async def run(self, pause_s: float) -> None:
        """Sweep until cancelled."""
        while True:
            try:
                await run_in_threadpool(self.sweep)
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
        self._blobs.discard_partial(older_than_s=ORPHAN_S)
        for key in self._blobs.keys(older_than_s=ORPHAN_S):
            if is_id(key) and not self._store.exists(key) and self._blobs.delete(key):
                log.info("removed video %s, which belongs to no summary", key)
