"""Every error answer: `application/problem+json` (RFC 9457), its HTTP status decided by one table."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from http import HTTPStatus

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from redis.exceptions import RedisError
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from contract.errors import (
    Code,
    ContractError,
    IdempotencyConflict,
    OutcomeUnknown,
    QueueFull,
    QuotaExceeded,
    RecordError,
    StorageFull,
    StorageUnavailable,
    SummaryGone,
    SummaryNotFound,
)
from contract.problem import MEDIA_TYPE, FieldProblem, Problem

log = logging.getLogger(__name__)

RETRY_AFTER_S = 5  # for what passes by itself: a full queue, Redis away
LINGER_S = 2.0
LINGER_BYTES = 64 * 2**20

STATUS: dict[Code, HTTPStatus] = {
    Code.REQUEST_MALFORMED: HTTPStatus.BAD_REQUEST,
    Code.REQUEST_NOT_FOUND: HTTPStatus.NOT_FOUND,
    Code.REQUEST_METHOD_NOT_ALLOWED: HTTPStatus.METHOD_NOT_ALLOWED,
    Code.REQUEST_TIMEOUT: HTTPStatus.REQUEST_TIMEOUT,
    Code.REQUEST_TOO_LARGE: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    Code.REQUEST_NOT_MULTIPART: HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    Code.REQUEST_INVALID_FIELD: HTTPStatus.UNPROCESSABLE_ENTITY,
    Code.REQUEST_IDEMPOTENCY_CONFLICT: HTTPStatus.CONFLICT,
    Code.AUTH_REQUIRED: HTTPStatus.UNAUTHORIZED,
    Code.AUTH_INVALID: HTTPStatus.UNAUTHORIZED,
    Code.AUTH_FORBIDDEN: HTTPStatus.FORBIDDEN,
    Code.QUOTA_RATE: HTTPStatus.TOO_MANY_REQUESTS,
    Code.QUOTA_CONCURRENCY: HTTPStatus.TOO_MANY_REQUESTS,
    Code.QUOTA_STORAGE: HTTPStatus.TOO_MANY_REQUESTS,
    Code.SUMMARY_NOT_FOUND: HTTPStatus.NOT_FOUND,
    Code.SUMMARY_GONE: HTTPStatus.GONE,
    Code.SUMMARY_UNREADABLE: HTTPStatus.INTERNAL_SERVER_ERROR,
    Code.DOMAIN_NOT_FOUND: HTTPStatus.NOT_FOUND,
    Code.VIDEO_EMPTY: HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    Code.VIDEO_UNSUPPORTED_CONTAINER: HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    Code.SERVICE_QUEUE_FULL: HTTPStatus.SERVICE_UNAVAILABLE,
    Code.SERVICE_QUEUE_UNAVAILABLE: HTTPStatus.SERVICE_UNAVAILABLE,
    Code.SERVICE_STORAGE_FULL: HTTPStatus.INSUFFICIENT_STORAGE,
    Code.SERVICE_STORAGE_UNAVAILABLE: HTTPStatus.SERVICE_UNAVAILABLE,
    Code.INTERNAL_ERROR: HTTPStatus.INTERNAL_SERVER_ERROR,
}


class ApiError(Exception):
    """A request that is refused. `detail` is a sentence for a person and must hold no internals."""

    def __init__(
        self,
        code: Code,
        detail: str,
        *,
        errors: Sequence[FieldProblem] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail
        self.errors = tuple(errors)
        self.headers = dict(headers or {})


class InvalidField(ApiError):
    """One field of the request is wrong; the answer names it."""

    def __init__(self, field: str, message: str) -> None:
        problem = FieldProblem(field=field, message=message)
        super().__init__(Code.REQUEST_INVALID_FIELD, f"{field}: {message}", errors=[problem])


class ProblemResponse(Response):
    """The answer to a refused request."""

    media_type = MEDIA_TYPE

    def __init__(self, problem: Problem, headers: Mapping[str, str] | None = None) -> None:
        sent = {"Cache-Control": "no-store", **(headers or {})}
        if problem.status == HTTPStatus.SERVICE_UNAVAILABLE:
            sent["Retry-After"] = str(RETRY_AFTER_S)
        super().__init__(problem.model_dump_json(exclude_none=True), problem.status, sent)
        self.problem = problem


class LingeringResponse(ProblemResponse):
    """An answer given before the upload was read to its end.

    The answer goes out at once; then the rest is read and thrown away for a moment. Closing with bytes
    unread makes the kernel reset the connection, and the client never sees why it was refused.
    """

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = [*self.raw_headers, (b"connection", b"close")]
        await send({"type": "http.response.start", "status": self.status_code, "headers": headers})
        await send({"type": "http.response.body", "body": self.body, "more_body": True})
        try:
            async with asyncio.timeout(LINGER_S):
                await _drain(receive)
        except TimeoutError:
            log.debug("the client goes on sending after its upload was refused")
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _drain(receive: Receive) -> None:
    room = LINGER_BYTES
    while room > 0:
        message = await receive()
        if message["type"] == "http.disconnect" or not message.get("more_body", False):
            return
        room -= len(message.get("body", b""))


def problem_of(error: Exception, path: str) -> Problem:
    """What the client is told about an exception."""
    code, detail = _explain(error)
    return Problem(
        title=STATUS[code].phrase,
        status=STATUS[code],
        code=code,
        detail=detail,
        instance=path,
        errors=error.errors if isinstance(error, ApiError) else (),
    )


def _explain(error: Exception) -> tuple[Code, str]:
    match error:
        case ApiError():
            return error.code, error.detail
        case SummaryNotFound():
            return Code.SUMMARY_NOT_FOUND, f"There is no summary {error.summary_id}."
        case SummaryGone():
            return Code.SUMMARY_GONE, f"Summary {error.summary_id} has expired or was deleted."
        case IdempotencyConflict():
            return (
                Code.REQUEST_IDEMPOTENCY_CONFLICT,
                "This Idempotency-Key was used before, for a different video or different fields.",
            )
        case QuotaExceeded():
            return error.code, error.message
        case QueueFull():
            return Code.SERVICE_QUEUE_FULL, f"{error.depth} summaries wait already; try again shortly."
        case StorageFull():
            return Code.SERVICE_STORAGE_FULL, "There is no room left to store the video."
        case RecordError():
            return Code.SUMMARY_UNREADABLE, "The stored summary can't be read by this version of the service."
        case RedisError() | OutcomeUnknown():
            return Code.SERVICE_QUEUE_UNAVAILABLE, "The queue is out of reach; try again shortly."
        case StorageUnavailable():
            return Code.SERVICE_STORAGE_UNAVAILABLE, "The video could not be stored; try again shortly."
        case _:
            return Code.INTERNAL_ERROR, "Something went wrong on our side."


def install(app: FastAPI) -> None:
    """Answer every exception with a problem."""
    for kind in (ApiError, ContractError, RedisError):
        app.add_exception_handler(kind, _on_known)
    app.add_exception_handler(HTTPException, _on_http)
    app.add_exception_handler(RequestValidationError, _on_validation)
    app.add_middleware(FaultBarrier)


async def _on_known(request: Request, error: Exception) -> Response:
    # What is refused before its route is reached, for want of a key, was not read: an upload may be on its way.
    return respond(request, error, linger=request.method == "POST")


def respond(request: Request, error: Exception, *, linger: bool = False) -> ProblemResponse:
    """The answer to an exception; `linger` where the request's body was not read to its end."""
    problem = problem_of(error, request.url.path)
    if problem.status >= HTTPStatus.INTERNAL_SERVER_ERROR and not isinstance(error, ApiError):
        log.warning("%s %s: %s: %s", request.method, request.url.path, type(error).__name__, error)
    kind = LingeringResponse if linger else ProblemResponse
    return kind(problem, _headers_of(error))


def _headers_of(error: Exception) -> dict[str, str]:
    match error:
        case ApiError():
            return error.headers
        case QuotaExceeded():
            return {"Retry-After": str(error.retry_after_s)}
        case _:
            return {}


async def _on_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    known = {
        HTTPStatus.NOT_FOUND: ApiError(Code.REQUEST_NOT_FOUND, f"There is nothing at {request.url.path}."),
        HTTPStatus.METHOD_NOT_ALLOWED: ApiError(
            Code.REQUEST_METHOD_NOT_ALLOWED, f"{request.method} is not possible here."
        ),
    }
    told = known.get(HTTPStatus(error.status_code), ApiError(Code.REQUEST_MALFORMED, str(error.detail)))
    response = respond(request, told)
    if error.headers is not None:
        response.headers.update(error.headers)
    return response


async def _on_validation(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    errors = [FieldProblem(field=str(found["loc"][-1]), message=found["msg"]) for found in error.errors()]
    detail = "; ".join(f"{problem.field}: {problem.message}" for problem in errors)
    return respond(request, ApiError(Code.REQUEST_INVALID_FIELD, detail, errors=errors))


class FaultBarrier:
    """The last line: what nobody expected is logged, and the client learns only that it was us."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = False

        async def note_start(message: Message) -> None:
            nonlocal started
            started = started or message["type"] == "http.response.start"
            await send(message)

        try:
            await self._app(scope, receive, note_start)
        except Exception as error:
            if scope["type"] != "http" or started:
                raise  # too late for an answer: the server breaks the connection off
            log.exception("%s %s failed", scope["method"], scope["path"])
            await ProblemResponse(problem_of(error, scope["path"]))(scope, receive, send)
