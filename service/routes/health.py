"""`/healthz`, `/readyz`, `/metrics`: for whoever runs the service."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Request, Security
from pydantic import BaseModel
from starlette.responses import Response

from contract.api_keys import Scope
from contract.errors import Code
from service import examples
from service.access import caller_if_known, caller_of
from service.gateway import Gateway, gateway_of
from service.readiness import Check, Readiness

router = APIRouter(tags=["operation"])
metrics_router = APIRouter(tags=["operation"])  # apart, since /metrics may have a port of its own


class Alive(BaseModel):
    """The process answers."""

    status: Literal["alive"] = "alive"


@router.get("/healthz", summary="Is the process alive?")
async def healthz() -> Alive:
    """Says nothing of Redis or workers: a restart would not help those."""
    return Alive()


@router.get(
    "/readyz",
    response_model=Readiness,
    summary="Can summaries be made now?",
    responses={503: {"model": Readiness, "description": "Not ready; the failed check says why."}},
)
async def readyz(request: Request, gateway: Annotated[Gateway, Depends(gateway_of)]) -> Response:
    """Ready: Redis answers, the blob store can be written, a worker takes work.

    Anybody may ask; the details are for keys with the scope `admin`.
    """
    readiness = await gateway.lookout.readiness(draining=gateway.draining.is_set())
    caller = await caller_if_known(request, redis_answers=gateway.lookout.redis_answers)
    if caller is None or Scope.ADMIN not in caller.scopes:
        readiness = _without_details(readiness)
    return Response(
        readiness.model_dump_json(),
        200 if readiness.ready else 503,
        {"Cache-Control": "no-store"},
        media_type="application/json",
    )


def _without_details(readiness: Readiness) -> Readiness:
    bare = {name: Check(ok=part.ok) for name, part in readiness if isinstance(part, Check)}
    return readiness.model_copy(update=bare)


@metrics_router.get(
    "/metrics",
    summary="Prometheus metrics",
    response_class=Response,
    dependencies=[Security(caller_of, scopes=[Scope.METRICS])],
    responses=examples.problems(*examples.KEY_PROBLEMS, Code.SERVICE_QUEUE_UNAVAILABLE),
)
def metrics(request: Request, gateway: Annotated[Gateway, Depends(gateway_of)]) -> Response:
    """Of this gateway, of the queue, and in one scrape of the workers that run beside it."""
    body, media_type = gateway.metrics.scrape(request.headers.get("accept", ""))
    return Response(body, headers={"Content-Type": media_type, "Cache-Control": "no-store"})
