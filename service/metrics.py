"""The gateway's Prometheus metrics: what it serves itself, and the state of the queue."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    start_http_server,
)
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector
from redis.exceptions import RedisError
from rq import Queue
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from contract.queue import live_workers
from contract.records import Status
from contract.store import SummaryStore

MULTIPROCESS_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
CLIENT_CLOSED = 499  # nobody was there any more to be answered
UNMATCHED = "unmatched"  # one label for all paths that are no route: strangers must not make up series
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
_METHODS = frozenset({"GET", "HEAD", "POST", "DELETE", "OPTIONS", "PUT", "PATCH"})


class GatewayMetrics:
    """This process's numbers, and the scrape.

    With PROMETHEUS_MULTIPROC_DIR set, a scrape sums up what every process of the machine wrote
    there: gateways and workers.
    """

    def __init__(self, store: SummaryStore, queue: Queue) -> None:
        own = CollectorRegistry()
        self.requests = Counter(
            "visum_http_requests",
            "HTTP requests answered, by route and status.",
            ("method", "route", "status"),
            registry=own,
        )
        self.seconds = Histogram(
            "visum_http_request_duration_seconds",
            "Time from a request's first byte to its answer's last, uploads included.",
            ("method", "route"),
            buckets=SECONDS,
            registry=own,
        )
        self.in_progress = Gauge(
            "visum_http_requests_in_progress",
            "HTTP requests being answered now.",
            registry=own,
            multiprocess_mode="livesum",
        )
        self.upload_bytes = Counter(
            "visum_upload_bytes", "Bytes of video received, refused uploads included.", registry=own
        )
        self.refused = Counter(
            "visum_uploads_refused", "Uploads refused, by the code of the problem.", ("code",), registry=own
        )
        self._scraped = CollectorRegistry() if MULTIPROCESS_VARIABLE in os.environ else own
        if self._scraped is not own:
            MultiProcessCollector(self._scraped)
        ProcessCollector(registry=self._scraped)
        self._scraped.register(QueueCollector(store, queue))

    def serve(self, host: str, port: int) -> Callable[[], None]:
        """Answer scrapes on a port of their own, on a thread; returns what ends it. Raises OSError."""
        server, thread = start_http_server(port, addr=host, registry=self._scraped)

        def stop() -> None:
            server.shutdown()
            server.server_close()
            thread.join()

        return stop

    def scrape(self, accept: str) -> tuple[bytes, str]:
        """The exposition and its media type, as the Accept header wants it."""
        try:
            encode, media_type = choose_encoder(accept)
        except (TypeError, ValueError):  # it asks for a version that is none
            encode, media_type = choose_encoder("")
        return encode(self._scraped), media_type


class QueueCollector(Collector):
    """The state of the queue, asked of Redis at every scrape. Without Redis only `visum_redis_up` is told."""

    def __init__(self, store: SummaryStore, queue: Queue) -> None:
        self._store, self._queue = store, queue

    def collect(self) -> Iterator[Metric]:
        try:
            families = [*self._families()]
        except RedisError:
            yield GaugeMetricFamily("visum_redis_up", "Whether Redis answers (1) or not (0).", 0)
            return
        yield GaugeMetricFamily("visum_redis_up", "Whether Redis answers (1) or not (0).", 1)
        yield from families

    def _families(self) -> Iterator[Metric]:
        counts = self._store.counts()
        oldest = self._store.oldest_queued()
        age = 0.0 if oldest is None else max(0.0, (datetime.now(UTC) - oldest).total_seconds())
        yield GaugeMetricFamily("visum_queue_depth", "Summaries that wait.", counts[Status.QUEUED])
        yield GaugeMetricFamily(
            "visum_queue_oldest_age_seconds", "Age of the summary that waits longest; 0 if none does.", age
        )
        jobs = GaugeMetricFamily("visum_jobs", "Summaries stored, by status.", labels=("status",))
        for status, count in counts.items():
            jobs.add_metric((status.value,), count)
        yield jobs
        yield GaugeMetricFamily(
            "visum_workers_alive", "Workers that were heard of lately.", live_workers(self._queue)
        )


class MetricsMiddleware:
    """Counts every request by its route's template, never by its path."""

    def __init__(self, app: ASGIApp, metrics: GatewayMetrics) -> None:
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status = CLIENT_CLOSED

        async def note_status(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        began = time.perf_counter()
        with self._metrics.in_progress.track_inprogress():
            try:
                await self._app(scope, receive, note_status)
            except Exception:
                status = 500
                raise
            finally:
                self._count(scope, status, time.perf_counter() - began)

    def _count(self, scope: Scope, status: int, seconds: float) -> None:
        method = scope["method"] if scope["method"] in _METHODS else "other"
        route = getattr(scope.get("route"), "path", UNMATCHED)
        self._metrics.requests.labels(method, route, str(status)).inc()
        self._metrics.seconds.labels(method, route).observe(seconds)
