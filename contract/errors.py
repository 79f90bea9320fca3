"""Every stable error code, and the exceptions of this package.

ContractError
├── JobFailure               a job ended without a summary; the record keeps its code and sentence
├── RecordError              stored bytes that are no record; keeps them in `raw`
│   ├── DamagedRecord
│   └── UnknownSchema
├── SummaryNotFound          no such id, now or before
├── SummaryGone              the id existed; it expired or was deleted
├── SummaryUnfinished        only a finished summary can be deleted
├── QueueFull
├── QuotaExceeded            the tenant has as much as it may have
├── OutcomeUnknown           Redis broke off while a summary was being created
├── IdempotencyConflict      one key, two different requests
└── BlobError
    ├── BlobMissing
    ├── StorageFull
    └── StorageUnavailable   the disk refuses, for another reason than its room
"""

from __future__ import annotations

from enum import StrEnum


class Code(StrEnum):
    """Stable codes: clients may branch on them, so a value never changes its meaning."""

    REQUEST_MALFORMED = "request.malformed"
    REQUEST_NOT_FOUND = "request.not_found"
    REQUEST_METHOD_NOT_ALLOWED = "request.method_not_allowed"
    REQUEST_TIMEOUT = "request.timeout"
    REQUEST_TOO_LARGE = "request.too_large"
    REQUEST_NOT_MULTIPART = "request.not_multipart"
    REQUEST_INVALID_FIELD = "request.invalid_field"
    REQUEST_IDEMPOTENCY_CONFLICT = "request.idempotency_conflict"

    AUTH_REQUIRED = "auth.required"
    AUTH_INVALID = "auth.invalid"
    AUTH_FORBIDDEN = "auth.forbidden"
    QUOTA_RATE = "quota.rate"
    QUOTA_CONCURRENCY = "quota.concurrency"
    QUOTA_STORAGE = "quota.storage"

    SUMMARY_NOT_FOUND = "summary.not_found"
    SUMMARY_GONE = "summary.gone"
    SUMMARY_UNREADABLE = "summary.unreadable"
    DOMAIN_NOT_FOUND = "domain.not_found"

    VIDEO_EMPTY = "video.empty"
    VIDEO_UNSUPPORTED_CONTAINER = "video.unsupported_container"
    VIDEO_UNDECODABLE = "video.undecodable"
    VIDEO_NO_FRAMES = "video.no_frames"
    VIDEO_NO_VIDEO_STREAM = "video.no_video_stream"
    VIDEO_TOO_LONG = "video.too_long"
    VIDEO_TOO_LARGE = "video.too_large"  # pictures, memory or streams over a limit; undecodable is damage
    VIDEO_MISSING = "video.missing"
    DECODE_TIMEOUT = "decode.timeout"
    DECODE_CRASHED = "decode.crashed"

    MODEL_NO_EVIDENCE = "model.no_evidence"
    MODEL_EMPTY_ANSWER = "model.empty_answer"
    MODEL_OUT_OF_MEMORY = "model.out_of_memory"
    ADAPTER_UNAVAILABLE = "adapter.unavailable"
    ADAPTER_REFUSED = "adapter.refused"

    JOB_TIMEOUT = "job.timeout"
    JOB_LOST = "job.lost"
    JOB_CANCELED = "job.canceled"

    SERVICE_QUEUE_FULL = "service.queue_full"
    SERVICE_QUEUE_UNAVAILABLE = "service.queue_unavailable"
    SERVICE_TOO_MANY_UPLOADS = "service.too_many_uploads"
    SERVICE_STORAGE_FULL = "service.storage_full"
    SERVICE_STORAGE_UNAVAILABLE = "service.storage_unavailable"
    INTERNAL_ERROR = "internal.error"


class ContractError(Exception):
    """Root of everything this package raises."""


class JobFailure(ContractError):
    """A job that ends without a summary.

    `message` is one sentence for the person who uploaded the video. `retryable` says that the same
    job may succeed on another try (memory ran out, a machine went away); bad input never is.
    """

    def __init__(self, code: Code, message: str, *, retryable: bool = False) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.retryable = retryable


class RecordError(ContractError):
    """Stored bytes that this version can't read as a record. `raw` is what was stored, untouched."""

    def __init__(self, raw: bytes, message: str) -> None:
        super().__init__(message)
        self.raw = raw


class DamagedRecord(RecordError):
    """The bytes are no record of the schema that they claim."""

    def __init__(self, raw: bytes, reason: str) -> None:
        super().__init__(raw, f"damaged summary record ({len(raw)} bytes): {reason}")
        self.reason = reason


class UnknownSchema(RecordError):
    """The record was written by another version of the software."""

    def __init__(self, raw: bytes, version: object) -> None:
        super().__init__(raw, f"summary record of unknown schema version {version!r}")
        self.version = version


class SummaryNotFound(ContractError):
    """No summary has, or ever had, this id."""

    def __init__(self, summary_id: str) -> None:
        super().__init__(f"no summary {summary_id}")
        self.summary_id = summary_id


class SummaryGone(ContractError):
    """The summary existed; it expired or was deleted."""

    def __init__(self, summary_id: str) -> None:
        super().__init__(f"summary {summary_id} expired or was deleted")
        self.summary_id = summary_id


class SummaryUnfinished(ContractError):
    """Deleting needs a finished summary; cancel this one first."""

    def __init__(self, summary_id: str) -> None:
        super().__init__(f"summary {summary_id} is not finished")
        self.summary_id = summary_id


class QueueFull(ContractError):
    """As many summaries wait as the queue may hold. `retry_after_s`: when they will be done, where that is known."""

    def __init__(self, depth: int, limit: int, retry_after_s: int | None = None) -> None:
        super().__init__(f"{depth} summaries wait, the queue holds at most {limit}")
        self.depth = depth
        self.limit = limit
        self.retry_after_s = retry_after_s


class QuotaExceeded(ContractError):
    """One more would be over a bound of the tenant's. `message` is a sentence for whoever asks."""

    def __init__(self, code: Code, message: str, retry_after_s: int) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.retry_after_s = retry_after_s


class OutcomeUnknown(ContractError):
    """Redis broke off while a summary was being created: it may exist or not."""

    def __init__(self, summary_id: str) -> None:
        super().__init__(f"Redis broke off while summary {summary_id} was being created")
        self.summary_id = summary_id


class IdempotencyConflict(ContractError):
    """The idempotency key was used before, for a different request."""

    def __init__(self, key: str) -> None:
        super().__init__(f"idempotency key {key!r} was used for a different request")
        self.key = key


class BlobError(ContractError):
    """Root of what a blob store raises."""


class BlobMissing(BlobError):
    """No blob under this key."""

    def __init__(self, key: str) -> None:
        super().__init__(f"no stored video {key}")
        self.key = key


class StorageFull(BlobError):
    """The store has no room for more bytes."""


class StorageUnavailable(BlobError):
    """The store can't take a video now. The message holds the disk's own words: not for clients."""
