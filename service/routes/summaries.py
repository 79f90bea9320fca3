"""`/summaries`: take a video, follow its summary, list, cancel and delete."""

from __future__ import annotations

import logging
from collections.abc import Callable, Coroutine
from typing import Annotated

from fastapi import APIRouter, Depends, Header, Query, Request, Security
from fastapi.routing import APIRoute
from fastapi.security import SecurityScopes
from redis.exceptions import RedisError
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from contract.api_keys import Scope
from contract.errors import Code, ContractError, StorageUnavailable, SummaryNotFound
from contract.ids import is_id, new_id
from contract.queue import withdraw
from contract.records import Status, SummaryRecord
from service import examples
from service.access import Caller, caller_of
from service.admission import idempotency_key
from service.fields import OptionFields
from service.gateway import Gateway, gateway_of
from service.metrics import CLIENT_CLOSED
from service.problems import ApiError, InvalidField, respond
from service.request_ids import SCOPE_KEY as REQUEST_ID
from service.uploads import UploadBody, receive
from service.video_sink import VideoSink
from service.views import (
    Accepted,
    SummaryList,
    SummaryView,
    json_with_etag,
    summary_line,
    summary_links,
    summary_view,
)

log = logging.getLogger(__name__)
router = APIRouter(prefix="/summaries", tags=["summaries"])

LONGEST_PAUSE_S = 15
WAITING_PER_SECOND = 4  # a client far back in the queue is told to ask less often

GatewayParam = Annotated[Gateway, Depends(gateway_of)]
CallerParam = Annotated[Caller, Security(caller_of, scopes=[Scope.SUMMARIES])]


@router.post(
    "",
    status_code=202,
    response_model=Accepted,
    summary="Summarize a video",
    openapi_extra={"requestBody": examples.FORM},
    responses={
        202: {
            **examples.success(
                "The video is stored and its summary queued.",
                {"Location": "Path of the summary", "Retry-After": "Seconds until it is worth asking"},
                queued=examples.ACCEPTED,
            ),
            "links": examples.NEXT_STEPS,
        },
        **examples.problems(
            Code.REQUEST_MALFORMED,
            *examples.KEY_PROBLEMS,
            Code.REQUEST_TIMEOUT,
            Code.REQUEST_IDEMPOTENCY_CONFLICT,
            Code.REQUEST_TOO_LARGE,
            Code.REQUEST_NOT_MULTIPART,
            Code.VIDEO_EMPTY,
            Code.VIDEO_UNSUPPORTED_CONTAINER,
            Code.REQUEST_INVALID_FIELD,
            Code.QUOTA_RATE,
            Code.QUOTA_CONCURRENCY,
            Code.QUOTA_STORAGE,
            Code.SERVICE_QUEUE_FULL,
            Code.SERVICE_QUEUE_UNAVAILABLE,
            Code.SERVICE_TOO_MANY_UPLOADS,
            Code.SERVICE_STORAGE_FULL,
            Code.SERVICE_STORAGE_UNAVAILABLE,
        ),
    },
)
async def create_summary(
    request: Request,
    gateway: GatewayParam,
    caller: CallerParam,
    key: Annotated[
        str | None,
        Header(
            alias="Idempotency-Key",
            description="Repeat a request with the same key within a day (VISUM_IDEMPOTENCY_S) and it is not done "
            "twice. Once its summary is deleted or has expired, the key is free again.",
        ),
    ] = None,
) -> Response:
    """Send the video as multipart form. It streams to storage; then its summary is queued.

    Ask for the summary at `Location`, no sooner than `Retry-After` says.
    """
    body = UploadBody(request, gateway.upload_limits)
    try:
        summary_id = await _take(request, gateway, caller, body, idempotency_key(key))
    except ClientDisconnect:
        log.info("the client went away during its upload; nothing is kept")
        return Response(status_code=CLIENT_CLOSED)
    except (ApiError, ContractError, RedisError, OSError) as error:
        told = StorageUnavailable(repr(error)) if isinstance(error, OSError) else error
        answer = respond(request, told, linger=not body.complete)
        log.info("an upload is refused: %s", answer.problem.code.value)
        gateway.metrics.refused.labels(answer.problem.code.value).inc()
        return answer
    log.info("a summary is queued", extra={"summary_id": summary_id, "key_id": caller.key_id})
    links = summary_links(request, summary_id)
    accepted = Accepted(id=summary_id, links=links)
    headers = {"Location": links.self, "Retry-After": "1"}
    return Response(accepted.model_dump_json(), 202, headers, media_type="application/json")


async def _take(request: Request, gateway: Gateway, caller: Caller, body: UploadBody, key: str | None) -> str:
    """From the first byte to the queue: the id of the summary."""
    body.check_length()
    with gateway.upload_room.place(caller.tenant, body.announced_bytes) as place:

        def received(size: int) -> None:
            place.received(size)
            gateway.metrics.upload_bytes.inc(size)

        allowance = await run_in_threadpool(gateway.admission.allowance, key, caller)
        place.let_in(allowance)
        summary_id = new_id(allowance.now)
        async with _sink(gateway, summary_id) as sink:
            finish = await receive(
                body, request.headers.get("content-type"), _fields(gateway), sink, received
            )
            place.complete()
            # Its key may have been revoked meanwhile.
            await caller_of(request, SecurityScopes([Scope.SUMMARIES]))
            # One turn of a thread for all that waits: turns are most of what a small upload costs.
            return await run_in_threadpool(
                lambda: gateway.admission.admit(
                    finish(), summary_id, key, caller=caller, request_id=request.scope[REQUEST_ID]
                )
            )


def _sink(gateway: Gateway, summary_id: str) -> VideoSink:
    settings = gateway.settings
    return VideoSink(
        gateway.blobs,
        summary_id,
        max_bytes=settings.max_upload_bytes,
        min_free_bytes=settings.min_free_bytes,
    )


def _fields(gateway: Gateway) -> OptionFields:
    settings = gateway.settings
    return OptionFields(
        gateway.catalog, max_instructions=settings.max_instructions, max_new_tokens=settings.max_new_tokens
    )


class PollRoute(APIRoute):
    """Reads its own request: for FastAPI to find out `get_summary`'s four arguments costs as much as the read does."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[None, None, Response]]:
        async def poll(request: Request) -> Response:
            gateway = await gateway_of(request)
            caller = await caller_of(request, SecurityScopes([Scope.SUMMARIES]))
            return await get_summary(request, request.path_params["summary_id"], gateway, caller)

        return poll


async def get_summary(
    request: Request, summary_id: str, gateway: GatewayParam, caller: CallerParam
) -> Response:
    """Status, progress, and at the end the result or the error."""
    if not is_id(summary_id):
        raise SummaryNotFound(summary_id[:64])
    record, position = await gateway.poller.look(summary_id, tenant=caller.tenant)
    return _show(request, record, position)


router.add_api_route(
    "/{summary_id}",
    get_summary,
    methods=["GET"],
    route_class_override=PollRoute,
    response_model=SummaryView,
    summary="Follow a summary",
    responses={
        200: examples.success(
            "The summary as it is now.",
            {"ETag": "Changes with the answer", "Retry-After": "While unfinished: seconds to wait"},
            queued=examples.QUEUED,
            running=examples.RUNNING,
            succeeded=examples.SUCCEEDED,
            failed=examples.FAILED,
        ),
        304: {"description": "Unchanged since the ETag in If-None-Match."},
        **examples.problems(
            *examples.KEY_PROBLEMS, Code.SUMMARY_NOT_FOUND, Code.SUMMARY_GONE, Code.SERVICE_QUEUE_UNAVAILABLE
        ),
    },
)


@router.get(
    "",
    response_model=SummaryList,
    summary="List summaries, newest first",
    responses={
        200: examples.success("One page.", page=examples.LISTING),
        **examples.problems(
            *examples.KEY_PROBLEMS, Code.REQUEST_INVALID_FIELD, Code.SERVICE_QUEUE_UNAVAILABLE
        ),
    },
)
def list_summaries(
    request: Request,
    gateway: GatewayParam,
    caller: CallerParam,
    status: Annotated[Status | None, Query(description="Only these")] = None,
    domain: Annotated[str | None, Query(description="The domain that answered, or was asked for")] = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    cursor: Annotated[str | None, Query(description="`cursor` of the page before")] = None,
) -> SummaryList:
    """Pages stay put while new summaries come in: a cursor names where the last page ended."""
    if cursor is not None and not is_id(cursor):
        raise InvalidField("cursor", "not a cursor of this listing")
    page = gateway.store.page(tenant=caller.tenant, status=status, domain=domain, limit=limit, cursor=cursor)
    if page.unreadable:
        log.warning("unreadable summaries: %s", ", ".join(page.unreadable))
    return SummaryList(
        summaries=tuple(summary_line(request, record) for record in page.records), cursor=page.cursor
    )


@router.delete(
    "/{summary_id}",
    status_code=204,
    summary="Cancel or delete a summary",
    responses={
        200: examples.success("It was waiting and is canceled."),
        202: examples.success("It runs; its worker stops at the next step."),
        204: {"description": "It was finished; it is deleted, with its video."},
        **examples.problems(
            *examples.KEY_PROBLEMS, Code.SUMMARY_NOT_FOUND, Code.SUMMARY_GONE, Code.SERVICE_QUEUE_UNAVAILABLE
        ),
    },
)
def delete_summary(request: Request, summary_id: str, gateway: GatewayParam, caller: CallerParam) -> Response:
    """Cancels what is queued or running; deletes what is finished, with its video."""
    found = _get(gateway, caller, summary_id).status
    status = found if found.finished else gateway.store.request_cancel(summary_id)
    if found.finished or (status.finished and status is not Status.CANCELED):  # it ended in between
        deleted = gateway.store.delete(summary_id)
        gateway.blobs.delete(deleted.request.blob_key)
        log.info("a summary is deleted", extra={"summary_id": summary_id, "key_id": caller.key_id})
        return Response(status_code=204)
    log.info("a summary is canceled", extra={"summary_id": summary_id, "key_id": caller.key_id})
    if status is Status.CANCELED:
        withdraw(gateway.queue, summary_id)
    record = _get(gateway, caller, summary_id)
    answer = _show(request, record, gateway.store.position(summary_id), conditional=False)
    answer.status_code = 202 if status is Status.RUNNING else 200
    return answer


def _get(gateway: Gateway, caller: Caller, summary_id: str) -> SummaryRecord:
    """The caller's own; that of another tenant is as unknown as one that never was."""
    if not is_id(summary_id):
        raise SummaryNotFound(summary_id[:64])
    return gateway.store.get(summary_id, tenant=caller.tenant)


def _show(
    request: Request, record: SummaryRecord, position: int | None, *, conditional: bool = True
) -> Response:
    position = position if record.status is Status.QUEUED else None
    headers = {"Cache-Control": "no-store"}  # a tenant's own: no cache on the way keeps it
    if not record.status.finished:
        pause = 1 + (position or 0) // WAITING_PER_SECOND
        headers["Retry-After"] = str(min(pause, LONGEST_PAUSE_S))
    view = summary_view(request, record, position)
    return json_with_etag(request, view, headers=headers, conditional=conditional)
