"""`/healthz`, `/readyz`, `/metrics`: for whoever runs the service."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel
from starlette.responses import Response

from service.gateway import Gateway, gateway_of
from service.readiness import Readiness, check

router = APIRouter(tags=["operation"])


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
def readyz(gateway: Annotated[Gateway, Depends(gateway_of)]) -> Response:
    """Ready: Redis answers, the blob store can be written, a worker is alive."""
    readiness = check(gateway)
    return Response(
        readiness.model_dump_json(),
        200 if readiness.ready else 503,
        {"Cache-Control": "no-store"},
        media_type="application/json",
    )


@router.get("/metrics", summary="Prometheus metrics", response_class=Response)
def metrics(request: Request, gateway: Annotated[Gateway, Depends(gateway_of)]) -> Response:
    """Of this gateway, of the queue, and in one scrape of the workers that run beside it."""
    body, media_type = gateway.metrics.scrape(request.headers.get("accept", ""))
    return Response(body, headers={"Content-Type": media_type, "Cache-Control": "no-store"})
