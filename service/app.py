"""The ASGI application. Importing this loads no torch, and reads no setting."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from fastapi import FastAPI

from contract.problem import Problem
from service import docs, problems
from service.draining import CloseWhileDraining
from service.durability import warn_of_losses
from service.gateway import Gateway, open_gateway
from service.headers import SecurityHeadersMiddleware
from service.janitor import Janitor
from service.metrics import MetricsMiddleware
from service.request_ids import RequestIdMiddleware
from service.routes import domains, health, summaries
from service.settings import GatewaySettings

log = logging.getLogger(__name__)

DESCRIPTION = """\
Upload a video, get a summary, and see which experts wrote it: every result carries the weight that
each expert's gate had, per layer and group. Every error is `application/problem+json` with a stable `code`.
"""


def create_app(settings: GatewaySettings | None = None) -> FastAPI:
    """The gateway, wired for these settings (the environment's by default)."""
    gateway = open_gateway(GatewaySettings() if settings is None else settings)
    app = FastAPI(
        title="ViSum",
        version=_version(),
        description=DESCRIPTION,
        lifespan=_lifespan,
        redirect_slashes=False,
        openapi_url="/openapi.json" if gateway.settings.docs else None,
        docs_url=None,  # FastAPI's own pages take their scripts from a CDN
        redoc_url=None,
        telemetry={"metrics": False, "logs": False},  # traces, where `contract.tracing` found a collector
    )
    app.state.gateway = gateway
    app.add_middleware(CloseWhileDraining, draining=gateway.draining)
    app.add_middleware(MetricsMiddleware, metrics=gateway.metrics)
    problems.install(app)
    app.add_middleware(SecurityHeadersMiddleware)
    app.add_middleware(RequestIdMiddleware)
    for router in (summaries.router, domains.router, health.router):
        app.include_router(router)
    if not gateway.settings.metrics_port:
        app.include_router(health.metrics_router)
    if gateway.settings.docs:
        docs.install(app)
    _document_problems(app)
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    gateway: Gateway = app.state.gateway
    _say_who_may(gateway.settings)
    await asyncio.to_thread(warn_of_losses, gateway.probe)
    janitor = Janitor(
        gateway.store,
        gateway.blobs,
        gateway.queue,
        orphan_s=gateway.settings.orphan_s,
        repair_s=gateway.settings.repair_s,
    )
    sweeping = asyncio.create_task(janitor.run(gateway.settings.sweep_s))
    stop_metrics = _serve_metrics(gateway)
    try:
        yield
    finally:
        stop_metrics()
        sweeping.cancel()
        with suppress(asyncio.CancelledError):
            await sweeping
        await gateway.poller.close()
        gateway.redis.close()
        gateway.probe.close()


def _serve_metrics(gateway: Gateway) -> Callable[[], None]:
    """Open the port of /metrics, if it has one of its own; returns what closes it.

    A second gateway on one machine finds the port taken: it works on, unmeasured, and says so.
    """
    host, port = gateway.settings.metrics_host, gateway.settings.metrics_port
    if not port:
        return lambda: None
    try:
        return gateway.metrics.serve(host, port)
    except OSError as error:
        log.warning("no /metrics on %s:%d: %s; see VISUM_METRICS_PORT", host, port, error.strerror)
        return lambda: None


def _say_who_may(settings: GatewaySettings) -> None:
    if settings.auth_required:
        log.info("requests need an API key: `visum keys create` makes one")
    elif not settings.loopback:
        log.warning(
            "ANYBODY who reaches %s:%d may submit, read and delete: VISUM_AUTH is off. Set it to `required`, or "
            "VISUM_HOST to 127.0.0.1.",
            settings.host,
            settings.port,
        )


def _document_problems(app: FastAPI) -> None:
    """Put the schema that every error answer refers to into the OpenAPI document."""
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        document = generate()
        schemas = document.setdefault("components", {}).setdefault("schemas", {})
        if "Problem" not in schemas:
            schema = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
            schemas.update(schema.pop("$defs", {}))
            schemas["Problem"] = schema
        _drop_generic_422(document)
        return document

    app.openapi = openapi  # type: ignore[method-assign]


def _drop_generic_422(document: dict[str, Any]) -> None:
    """FastAPI documents an answer of its own for whatever has a parameter. Ours are problems, where there are any."""
    for operations in document["paths"].values():
        for operation in operations.values():
            if "HTTPValidationError" in str(operation["responses"].get("422")):
                del operation["responses"]["422"]
    for name in ("HTTPValidationError", "ValidationError"):
        document["components"]["schemas"].pop(name, None)


def _version() -> str:
    try:
        return version("milora-visum")
    except PackageNotFoundError:  # run from a checkout that is not installed
        return "0"
