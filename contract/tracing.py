"""OpenTelemetry traces: one from the upload through the queue to the worker's stages, where they are asked for.

Spans are made through OpenTelemetry's API alone, whose spans are nothing until `configure` finds a collector in
the environment (OTEL_EXPORTER_OTLP_ENDPOINT) and the SDK installed (the extra `otel`). Between gateway and worker
the trace travels in the record, as a W3C traceparent.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime

from opentelemetry import trace
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

log = logging.getLogger("visum.tracing")

ENDPOINT_VARIABLES = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
_TRACEPARENT = "traceparent"
_propagator = TraceContextTextMapPropagator()
_tracer = trace.get_tracer("visum")
span = _tracer.start_as_current_span
"""A span around a `with` block, or as a decorator around each call of a function."""


def configure(service: str) -> None:
    """Send this process's spans to the collector that the environment names, if it does. Called once, at start."""
    if not any(os.environ.get(name) for name in ENDPOINT_VARIABLES):
        return
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ModuleNotFoundError as error:
        log.warning(
            "no traces, although %s is set: %s is missing; pip install 'milora-visum[otel]'",
            ENDPOINT_VARIABLES[0],
            error.name,
        )
        return
    named = {} if os.environ.get("OTEL_SERVICE_NAME") else {"service.name": service}
    provider = TracerProvider(resource=Resource.create(named))
    provider.add_span_processor(
        BatchSpanProcessor(OTLPSpanExporter())
    )  # what is left is sent when the process ends
    trace.set_tracer_provider(provider)


def traceparent() -> str | None:
    """Where the trace of what runs now stands, to be resumed elsewhere; None without one."""
    carrier: dict[str, str] = {}
    _propagator.inject(carrier)
    return carrier.get(_TRACEPARENT)


@contextmanager
def resumed(name: str, parent: str | None, waiting_since: datetime, **attributes: str) -> Iterator[None]:
    """A span in the trace of a `traceparent`, or in one of its own, with one beside it for the time of waiting."""
    context = None if parent is None else _propagator.extract({_TRACEPARENT: parent})
    began = time.time_ns()
    with _tracer.start_as_current_span(name, context, attributes=attributes):
        waiting = _tracer.start_span("queued", context, start_time=int(waiting_since.timestamp() * 1e9))
        waiting.end(began)
        yield


def past(name: str, from_s_ago: float, to_s_ago: float = 0.0) -> None:
    """A span of what was measured elsewhere, within the one that runs now."""
    now = time.time()
    _tracer.start_span(name, start_time=int((now - from_s_ago) * 1e9)).end(int((now - to_s_ago) * 1e9))
