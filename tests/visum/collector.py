"""An OpenTelemetry collector: takes spans over OTLP/HTTP and keeps them."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


@dataclass(frozen=True)
class Span:
    """What a test looks at."""

    id: str
    parent: str
    service: str
    attributes: dict[str, str]


class Collector:
    """`url` is for OTEL_EXPORTER_OTLP_ENDPOINT."""

    def __init__(self, url: str, taken: list[ExportTraceServiceRequest]) -> None:
        self.url, self._taken = url, taken

    def spans(self, trace_id: str) -> dict[str, Span]:
        """The spans of a trace, by name."""
        return {
            span.name: Span(
                span.span_id.hex(),
                span.parent_span_id.hex(),
                next(
                    item.value.string_value
                    for item in resource.resource.attributes
                    if item.key == "service.name"
                ),
                {item.key: item.value.string_value for item in span.attributes},
            )
            for request in list(self._taken)
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
            if span.trace_id.hex() == trace_id
        }


@contextmanager
def collecting() -> Iterator[Collector]:
    taken: list[ExportTraceServiceRequest] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            taken.append(ExportTraceServiceRequest.FromString(body))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield Collector(f"http://127.0.0.1:{server.server_port}", taken)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
