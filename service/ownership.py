"""Whether the videos of this folder are those of the records in this Redis.

A sweep that took the records of another Redis, or of one that lost its data, for its own would remove every video that
was accepted. So both sides bear the id of one service, and a sweep compares them first.
"""

from __future__ import annotations

import logging
import secrets
from itertools import islice

from redis import Redis

from contract import keys
from contract.blobs import BlobStore
from contract.ids import is_id
from contract.store import SummaryStore

log = logging.getLogger(__name__)

_NAMED = 3


class Ownership:
    """Compares the two ids, and gives a folder without one its id where that can't cost anybody a video."""

    def __init__(self, redis: Redis, store: SummaryStore, blobs: BlobStore) -> None:
        self._redis, self._store, self._blobs = redis, store, blobs

    def holds(self) -> bool:
        """Whether a video without a record may be removed. Raises RedisError, OSError."""
        told, owner = self._redis.get(keys.SERVICE), self._blobs.owner()
        if owner is None:
            return self._adopted()
        if told is not None and told.decode() == owner:
            return True
        log.error(
            "nothing is swept: the folder of videos belongs to service %s, this Redis to %s. Correct VISUM_REDIS_URL "
            "or VISUM_BLOB_DIR. If they do belong together, as when Redis lost its data, remove .visum-service from "
            "the folder.",
            owner,
            "none" if told is None else told.decode(),
        )
        return False

    def _adopted(self) -> bool:
        """Take a folder over that is nobody's, if every video in it has its record here."""
        videos = (key for key in self._blobs.keys(older_than_s=0) if is_id(key))
        if strange := list(islice(self._store.without_record(videos), _NAMED)):
            log.error(
                "nothing is swept: the folder of videos bears no service's id, and this Redis knows nothing of some "
                "in it, like %s. Correct VISUM_REDIS_URL or VISUM_BLOB_DIR, or move those videos away.",
                ", ".join(strange),
            )
            return False
        # Of several gateways the first one's id holds.
        self._redis.set(keys.SERVICE, secrets.token_hex(8), nx=True)
        self._blobs.set_owner(self._redis.get(keys.SERVICE).decode())
        return True
