"""The record of one summary, as Redis keeps it: JSON with a schema version."""

from __future__ import annotations

from enum import StrEnum

import pydantic_core
from pydantic import AwareDatetime, Field, NonNegativeInt, StrictInt, ValidationError

from contract.containers import Container
from contract.errors import Code, DamagedRecord, RecordError, UnknownSchema
from contract.part import Part
from contract.result import SummaryResult
from contract.tenants import DEFAULT_TENANT

SCHEMA_VERSION = 3
_READABLE = (1, 2, SCHEMA_VERSION)  # 1 knew neither tenants nor request ids, 2 did not count failures
AUTO_DOMAIN = "auto"  # the worker picks the domain from the video itself


class Status(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELED = "canceled"

    @property
    def finished(self) -> bool:
        return self in (Status.SUCCEEDED, Status.FAILED, Status.CANCELED)


class Stage(StrEnum):
    QUEUED = "queued"
    DECODE = "decode"
    ADAPTER = "adapter"
    PREFILL = "prefill"
    GENERATE = "generate"


class SummaryRequest(Part):
    """What was asked for. `sha256` and `size_bytes` are the uploaded file's; `blob_key` finds it."""

    filename: str
    sha256: str
    size_bytes: NonNegativeInt
    container: Container
    blob_key: str
    domain: str = AUTO_DOMAIN
    instructions: str | None = None
    max_new_tokens: int | None = Field(default=None, ge=1)
    seed: int | None = Field(default=None, ge=0)
    adapter_version: int | None = Field(default=None, ge=1)


class Progress(Part):
    """How far a stage is: `done` of `total` frames while decoding, tokens while generating."""

    stage: Stage = Stage.QUEUED
    done: NonNegativeInt = 0
    total: NonNegativeInt = 0


class JobError(Part):
    """Why there is no summary: a stable code and a sentence for a person."""

    code: Code
    message: str


class SummaryRecord(Part):
    """Everything known about one summary.

    The gateway fills id, tenant, created_at, request, and of the HTTP request its id and trace.
    A worker's `start` fills started_at, worker and
    generation (the fencing token: +1 with every start, writes that carry an older one are refused)
    and counts attempts; `failures` counts those that ended in a failure that may pass, and not in their worker's
    death. `setback` is why the attempt before this one had no end. The end fills
    finished_at, expires_at and either result or error.
    """

    schema_version: StrictInt = SCHEMA_VERSION
    id: str
    tenant: str = DEFAULT_TENANT
    status: Status = Status.QUEUED
    created_at: AwareDatetime
    started_at: AwareDatetime | None = None
    finished_at: AwareDatetime | None = None
    expires_at: AwareDatetime | None = None
    request: SummaryRequest
    request_id: str | None = None
    traceparent: str | None = None
    progress: Progress = Progress()
    attempts: NonNegativeInt = 0
    failures: NonNegativeInt = 0
    generation: NonNegativeInt = 0
    worker: str | None = None
    cancel_requested: bool = False
    result: SummaryResult | None = None
    error: JobError | None = None
    setback: JobError | None = None

    @property
    def domain(self) -> str:
        """The domain that answered, or the one asked for while there is no answer."""
        return self.request.domain if self.result is None else self.result.domain.selected


def encode(record: SummaryRecord) -> bytes:
    """A record as the JSON bytes that are stored."""
    return record.model_dump_json().encode()


def decode(raw: bytes) -> SummaryRecord:
    """The record that `raw` holds.

    Raises:
        UnknownSchema: written by a version that keeps records differently.
        DamagedRecord: anything else that is no record. Both keep `raw`.
    """
    try:
        record = SummaryRecord.model_validate_json(raw)
    except ValidationError as error:
        raise _unreadable(raw, error) from error
    if "schema_version" not in record.model_fields_set:
        raise DamagedRecord(raw, "no schema_version")
    if record.schema_version not in _READABLE:
        raise UnknownSchema(raw, record.schema_version)
    if record.schema_version != SCHEMA_VERSION:
        record = record.model_copy(update={"schema_version": SCHEMA_VERSION})
    return record


def _unreadable(raw: bytes, error: ValidationError) -> RecordError:
    """Why it is no record: first of all its version, whose fields need not be ours."""
    try:
        fields = pydantic_core.from_json(raw, allow_inf_nan=False)
    except ValueError as damage:
        return DamagedRecord(raw, f"not JSON ({damage})")
    if not isinstance(fields, dict):
        return DamagedRecord(raw, "not a JSON object")
    version = fields.get("schema_version")
    if version is None:
        return DamagedRecord(raw, "no schema_version")
    if type(version) is not int or version not in _READABLE:
        return UnknownSchema(raw, version)
    first = error.errors(include_url=False, include_input=False)[0]
    place = ".".join(str(part) for part in first["loc"]) or "record"
    return DamagedRecord(raw, f"{place}: {first['msg']}")
