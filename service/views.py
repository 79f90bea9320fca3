"""What the API shows of a record and of a listing, and how it is sent."""

from __future__ import annotations

import hashlib

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import Response

from contract.containers import Container
from contract.records import JobError, Progress, Status, SummaryRecord
from contract.result import SummaryResult


class View(BaseModel):
    model_config = ConfigDict(frozen=True)


class Links(View):
    """Where to go on."""

    self: str


class Accepted(View):
    """The answer to a new summary. It stays the same when its Idempotency-Key is repeated, while the key is kept."""

    id: str
    status: Status = Status.QUEUED
    links: Links


class RequestView(View):
    """What was asked for."""

    filename: str
    sha256: str
    size_bytes: int
    container: Container
    domain: str
    instructions: str | None
    max_new_tokens: int | None
    seed: int | None
    adapter_version: int | None


class SummaryView(View):
    """One summary as it is now."""

    id: str
    status: Status
    created_at: AwareDatetime
    started_at: AwareDatetime | None
    finished_at: AwareDatetime | None
    expires_at: AwareDatetime | None = Field(description="When summary and video are removed")
    request: RequestView
    progress: Progress
    position: int | None = Field(description="While queued: 1 is taken next")
    attempts: int
    cancel_requested: bool
    result: SummaryResult | None
    error: JobError | None
    links: Links


class SummaryLine(View):
    """One summary in a listing, without its gates."""

    id: str
    status: Status
    domain: str = Field(description="The domain that answered, or the one asked for until then")
    filename: str
    created_at: AwareDatetime
    finished_at: AwareDatetime | None
    summary: str | None
    error: JobError | None
    links: Links


class SummaryList(View):
    """One page, newest first. `cursor` continues it; null at the end."""

    summaries: tuple[SummaryLine, ...]
    cursor: str | None


def links(request: Request, path: str) -> Links:
    """Links are paths: what is in front of the gateway decides scheme and host."""
    return Links(self=f"{request.scope.get('root_path', '')}{path}")


def summary_links(request: Request, summary_id: str) -> Links:
    return links(request, f"/summaries/{summary_id}")


def summary_view(request: Request, record: SummaryRecord, position: int | None) -> SummaryView:
    """A record without what is between gateway and workers alone."""
    asked = record.request
    return SummaryView(
        id=record.id,
        status=record.status,
        created_at=record.created_at,
        started_at=record.started_at,
        finished_at=record.finished_at,
        expires_at=record.expires_at,
        request=RequestView(
            filename=asked.filename,
            sha256=asked.sha256,
            size_bytes=asked.size_bytes,
            container=asked.container,
            domain=asked.domain,
            instructions=asked.instructions,
            max_new_tokens=asked.max_new_tokens,
            seed=asked.seed,
            adapter_version=asked.adapter_version,
        ),
        progress=record.progress,
        position=position,
        attempts=record.attempts,
        cancel_requested=record.cancel_requested,
        result=record.result,
        error=record.error,
        links=summary_links(request, record.id),
    )


def summary_line(request: Request, record: SummaryRecord) -> SummaryLine:
    return SummaryLine(
        id=record.id,
        status=record.status,
        domain=record.domain,
        filename=record.request.filename,
        created_at=record.created_at,
        finished_at=record.finished_at,
        summary=None if record.result is None else record.result.summary,
        error=record.error,
        links=summary_links(request, record.id),
    )


def json_with_etag(
    request: Request, view: BaseModel, *, headers: dict[str, str] | None = None, conditional: bool = True
) -> Response:
    """The view as JSON, or 304 where the client has it already (`conditional`: for GET alone)."""
    body = view.model_dump_json().encode()
    etag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
    sent = {"ETag": etag, "Cache-Control": "no-cache", **(headers or {})}
    if conditional and _matches(request.headers.get("if-none-match"), etag):
        return Response(status_code=304, headers=sent)
    return Response(body, media_type="application/json", headers=sent)


def _matches(header: str | None, etag: str) -> bool:
    if header is None:
        return False
    tags = {tag.strip().removeprefix("W/") for tag in header.split(",")}
    return etag in tags or "*" in tags
