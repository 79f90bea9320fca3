"""A real gateway on a real port over a real Valkey, in this process so that tests can look inside."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from redis import Redis
from rq import SimpleWorker
from rq.serializers import JSONSerializer

from contract.queue import QUEUE_NAME
from contract.result import SummaryResult
from contract.store import SummaryStore
from service.app import create_app
from service.examples import RESULT
from service.gateway import Gateway
from service.settings import GatewaySettings
from tests.service.wire import eventually
from visum.valkey import EmbeddedValkey


class RunningGateway:
    """A gateway and a client for it."""

    def __init__(self, parts: Gateway, url: str, http: httpx.Client) -> None:
        self.parts, self.url, self.http = parts, url, http

    @property
    def store(self) -> SummaryStore:
        return self.parts.store

    def post(
        self, content: bytes, name: str = "a.mp4", *, key: str | None = None, **fields: object
    ) -> httpx.Response:
        headers = {} if key is None else {"Idempotency-Key": key}
        data = {name: str(value) for name, value in fields.items()}
        return self.http.post("/summaries", files={"file": (name, content)}, data=data, headers=headers)

    def files(self) -> list[str]:
        """Everything in the folder of videos but whose they are, half-written files included."""
        names = (path.name for path in self.parts.settings.blobs.iterdir())
        return sorted(name for name in names if not name.startswith("."))


@contextmanager
def running(settings: GatewaySettings) -> Iterator[RunningGateway]:
    app = create_app(settings)
    server = uvicorn.Server(
        uvicorn.Config(app, host="127.0.0.1", port=0, log_level="warning", timeout_graceful_shutdown=3)
    )
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    eventually(lambda: server.started)
    url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    try:
        with httpx.Client(base_url=url, timeout=30, trust_env=False) as http:
            yield RunningGateway(app.state.gateway, url, http)
    finally:
        server.should_exit = True
        thread.join(timeout=15)


@pytest.fixture(scope="session")
def _valkey() -> Iterator[str]:
    """One server for all of these tests; nobody else's, so it may be emptied."""
    with tempfile.TemporaryDirectory(prefix="visum-", dir="/tmp") as folder:
        valkey = EmbeddedValkey(Path(folder) / "valkey")
        process = valkey.start()
        yield valkey.url
        process.terminate()
        process.wait(timeout=20)


@pytest.fixture
def redis_url(_valkey: str) -> str:
    """Its address; it is empty when a test begins."""
    with Redis.from_url(_valkey) as redis:
        redis.flushall()
    return _valkey


StartGateway = Callable[..., RunningGateway]


@pytest.fixture
def start_gateway(tmp_path: Path, redis_url: str) -> Iterator[StartGateway]:
    """Starts a gateway with the settings given; all end with the test."""
    with ExitStack() as stack:

        def start(**settings: Any) -> RunningGateway:
            given = {"data_dir": tmp_path, "redis_url": redis_url, "min_free_bytes": 0, **settings}
            return stack.enter_context(running(GatewaySettings(**given)))

        yield start


@pytest.fixture
def gateway(start_gateway: StartGateway) -> RunningGateway:
    """A gateway with the default settings."""
    return start_gateway()


@pytest.fixture
def result() -> SummaryResult:
    return SummaryResult.model_validate(RESULT)


@pytest.fixture
def live_worker(redis_url: str) -> Iterator[SimpleWorker]:
    """A worker that is registered with the queue, and does nothing."""
    with Redis.from_url(redis_url) as redis:
        worker = SimpleWorker([QUEUE_NAME], connection=redis, serializer=JSONSerializer)
        worker.register_birth()
        yield worker
