"""Whether a summary is taken, and the one write that takes it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict

from redis.exceptions import RedisError
from rq import Queue

from contract import tracing
from contract.blobs import BlobStore
from contract.creation import Idempotency
from contract.errors import Code, ContractError, OutcomeUnknown, QueueFull
from contract.queue import enqueue
from contract.quotas import NO_QUOTA, Usage
from contract.records import SummaryRecord, SummaryRequest
from contract.store import SummaryStore
from contract.waiting import seconds_until_served
from service.access import Caller
from service.problems import ApiError
from service.quotas import TenantQuotas
from service.upload_room import Allowance
from service.uploads import Upload

MAX_KEY = 255


def idempotency_key(header: str | None) -> str | None:
    """The Idempotency-Key of a request. Raises ApiError (400) for one that can't be kept."""
    if header is None:
        return None
    if not 1 <= len(header) <= MAX_KEY or not (header.isascii() and header.isprintable()):
        raise ApiError(
            Code.REQUEST_MALFORMED, f"Idempotency-Key must be 1 to {MAX_KEY} printable ASCII characters."
        )
    return header


class Admission:
    """Takes uploads into the queue, up to a bound."""

    def __init__(
        self,
        store: SummaryStore,
        blobs: BlobStore,
        queue: Queue,
        quotas: TenantQuotas,
        *,
        max_queue: int,
        min_free_bytes: int,
    ) -> None:
        self._store, self._blobs, self._queue, self._quotas = store, blobs, queue, quotas
        self._max_queue, self._min_free_bytes = max_queue, min_free_bytes

    def allowance(self, key: str | None, caller: Caller) -> Allowance:
        """What there is for an upload before it is read; what would be refused after it is refused now.

        A request that was made before adds nothing to what its tenant has: it is bounded by others under way alone.

        Raises:
            QuotaExceeded, QueueFull, RedisError.
        """
        self._quotas.count_submit(caller)
        quota, used = self._quotas.of(caller), Usage()
        if key is None or not self._store.known_key(key, caller.tenant):
            if quota != NO_QUOTA:
                used = self._store.usage(caller.tenant)
            depth = self._store.queued()
            if depth >= self._max_queue:
                raise self._full(depth)
        free = self._blobs.free_bytes()
        above_floor = None if free is None else free - self._min_free_bytes
        return Allowance(quota, used, above_floor, self._store.now())

    def _full(self, depth: int) -> QueueFull:
        return QueueFull(
            depth, self._max_queue, seconds_until_served(self._queue.connection, self._queue, depth)
        )

    def admit(
        self,
        upload: Upload,
        summary_id: str,
        key: str | None,
        *,
        caller: Caller,
        request_id: str | None = None,
    ) -> str:
        """Write the record and queue its job, both or neither; the id that answers the request.

        It is an earlier one where the same request was made before with the same key.

        Raises:
            QuotaExceeded, QueueFull, IdempotencyConflict, RedisError: nothing is queued, the video is removed.
            OutcomeUnknown: Redis broke off in the middle of it.
        """
        record = SummaryRecord(
            id=summary_id,
            tenant=caller.tenant,
            created_at=self._store.now(),
            request=_request(upload),
            request_id=request_id,
            traceparent=tracing.traceparent(),
        )
        idempotency = None if key is None else Idempotency(key, fingerprint(upload), caller.tenant)
        try:
            answer = self._store.create(
                record,
                enqueue=lambda pipe, job_id: enqueue(self._queue, job_id, pipeline=pipe),
                max_queued=self._max_queue,
                idempotency=idempotency,
                quota=self._quotas.of(caller),
            )
        except OutcomeUnknown:
            raise  # the job may be queued, and then it needs its video; if not, the sweep removes it
        except QueueFull as full:
            self._blobs.delete(upload.video.blob_key)
            raise self._full(full.depth) from full
        except (ContractError, RedisError):
            self._blobs.delete(upload.video.blob_key)
            raise
        if answer != summary_id:
            self._blobs.delete(upload.video.blob_key)
        return answer


def fingerprint(upload: Upload) -> str:
    """A digest of all that makes a request what it is: the video's bytes, its name, every option."""
    parts = {"sha256": upload.video.sha256, "filename": upload.filename, **asdict(upload.options)}
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _request(upload: Upload) -> SummaryRequest:
    video = upload.video
    return SummaryRequest(
        filename=upload.filename,
        sha256=video.sha256,
        size_bytes=video.size_bytes,
        container=video.container,
        blob_key=video.blob_key,
        **asdict(upload.options),
    )
