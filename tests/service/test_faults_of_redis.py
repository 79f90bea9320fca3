"""A Redis that is full, a replica, silent, gone or replaced: the answer is a stable problem, and /readyz says no."""

from __future__ import annotations

import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest
from redis import Redis
from redis.exceptions import RedisError
from rq import SimpleWorker
from rq.serializers import JSONSerializer

from benchmarks.processes import free_port
from contract.api_keys import Scope
from contract.queue import QUEUE_NAME
from service.settings import GatewaySettings
from tests.service.callers import CallerWithKey
from tests.service.conftest import RunningGateway, running
from tests.service.wire import MP4, connection, eventually
from visum.valkey import EmbeddedValkey, server_binary


class Server:
    """A Valkey of this test alone, and a gateway and a worker's registration on it."""

    def __init__(self, folder: Path) -> None:
        self.valkey = EmbeddedValkey(folder / "valkey")
        self.process = self.valkey.start()
        self.redis = Redis.from_url(self.valkey.url)
        worker = SimpleWorker([QUEUE_NAME], connection=self.redis, serializer=JSONSerializer)
        worker.register_birth()


@pytest.fixture
def server(short_path: Path) -> Iterator[Server]:
    found = Server(short_path)
    yield found
    found.process.send_signal(signal.SIGCONT)
    found.process.kill()
    found.process.wait(timeout=20)


@pytest.fixture
def gateway(server: Server, tmp_path: Path) -> Iterator[RunningGateway]:
    settings = GatewaySettings(data_dir=tmp_path, redis_url=server.valkey.url, min_free_bytes=0)
    with running(settings) as found:
        assert found.http.get("/readyz").status_code == 200
        yield found


def _fill(server: Server) -> None:
    server.redis.config_set("maxmemory", "1mb")


def _make_replica(server: Server) -> None:
    server.redis.replicaof(
        "127.0.0.1", "1"
    )  # of nobody that answers: it keeps what it has and takes no writes


def _silence(server: Server) -> None:
    server.process.send_signal(signal.SIGSTOP)


def _kill(server: Server) -> None:
    server.process.kill()
    server.process.wait(timeout=20)


@pytest.mark.parametrize(
    ("strike", "words"),
    [
        pytest.param(_fill, "takes no writes (OutOfMemoryError)", id="out-of-memory"),
        pytest.param(_make_replica, "takes no writes (ReadOnlyError)", id="read-only"),
        pytest.param(_silence, "does not answer (TimeoutError)", id="silent"),
        pytest.param(_kill, "does not answer (ConnectionError)", id="gone"),
    ],
)
def test_an_upload_is_refused_with_nothing_left_and_readyz_says_why(
    gateway: RunningGateway, server: Server, strike: Callable[[Server], None], words: str
) -> None:
    strike(server)
    eventually(lambda: gateway.http.get("/readyz").status_code == 503)
    assert gateway.http.get("/readyz").json()["redis"] == {"ok": False, "detail": words}
    refused = gateway.post(MP4)
    assert (refused.status_code, refused.json()["code"]) == (503, "service.queue_unavailable")
    assert int(refused.headers["Retry-After"]) > 0
    assert gateway.files() == []
    assert gateway.http.get("/healthz").status_code == 200


def test_readyz_says_within_two_seconds_that_redis_is_silent_to_whom_it_knows_and_beside_any_crowd(
    server: Server, tmp_path: Path
) -> None:
    settings = GatewaySettings(
        data_dir=tmp_path, redis_url=server.valkey.url, min_free_bytes=0, auth="required"
    )
    with ExitStack() as stack:
        gateway = stack.enter_context(running(settings))
        admin = CallerWithKey(gateway, "ops", [Scope.SUMMARIES, Scope.ADMIN])
        assert admin.get("/readyz").json()["workers"]["detail"] == "1 take work"
        _silence(server)
        stack.callback(server.process.send_signal, signal.SIGCONT)
        for _ in range(60):  # more than the gateway has threads for requests
            wire = stack.enter_context(connection(gateway.url))
            wire.sendall(
                f"GET /summaries HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {admin.token}\r\n\r\n".encode()
            )
        took: list[float] = []

        def told(headers: dict[str, str]) -> object:
            began = time.monotonic()
            answer = gateway.http.get("/readyz", headers=headers)
            took.append(time.monotonic() - began)
            return answer.json()["redis"]

        eventually(lambda: told(admin.headers) == {"ok": False, "detail": "does not answer (TimeoutError)"})
        assert told({}) == {"ok": False, "detail": ""}
        assert 1 < max(took) < 4  # one of them looked; a busy machine adds to its two seconds


@pytest.mark.parametrize("strike", [_fill, _make_replica])
def test_what_is_stored_can_be_read_while_nothing_can_be_written(
    gateway: RunningGateway, server: Server, strike: Callable[[Server], None]
) -> None:
    path = gateway.post(MP4).headers["Location"]
    for index in server.redis.keys("visum:index*"):  # of one whose record is gone
        server.redis.zadd(index, {"01K4Z7QHR8V2M6N3P5T9W1XBYC": 0})
    strike(server)
    assert gateway.http.get(path).json()["status"] == "queued"
    assert [line["links"]["self"] for line in gateway.http.get("/summaries").json()["summaries"]] == [path]


def test_a_restarted_redis_knows_every_summary_that_was_answered_for(
    gateway: RunningGateway, server: Server
) -> None:
    paths = [gateway.post(MP4).headers["Location"] for _ in range(5)]
    _kill(server)
    server.process = server.valkey.start()
    eventually(lambda: gateway.http.get("/readyz").status_code == 200)
    assert [gateway.http.get(path).json()["status"] for path in paths] == ["queued"] * 5
    assert gateway.parts.queue.count == 5


def test_readyz_counts_no_worker_that_fell_silent(gateway: RunningGateway, server: Server) -> None:
    (key,) = server.redis.smembers(f"rq:workers:{QUEUE_NAME}")
    server.redis.pexpire(key, 1)
    eventually(
        lambda: gateway.http.get("/readyz").json()["workers"] == {"ok": False, "detail": "0 take work"}
    )


class Switch:
    """One address in front of two servers, as a proxy or a name has it: new connections go where it points."""

    def __init__(self, port: int) -> None:
        self.target = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):  # closed with the test
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self.target))
                for source, sink in ((client, server), (server, client)):
                    threading.Thread(target=self._pump, args=(source, sink), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
        with suppress(OSError):
            sink.shutdown(socket.SHUT_WR)
        source.close()

    def close(self) -> None:
        self._listener.close()


@contextmanager
def _valkey_on_a_port(folder: Path, port: int) -> Iterator[Redis]:
    folder.mkdir()
    process = subprocess.Popen(
        [str(server_binary()), "--port", str(port), "--dir", str(folder), "--save", ""],
        stdout=subprocess.DEVNULL,
    )
    try:
        with Redis(port=port) as redis:
            eventually(lambda: _answers(redis), seconds=20)
            yield redis
    finally:
        process.terminate()
        process.wait(timeout=20)


def _answers(redis: Redis) -> bool:
    try:
        return bool(redis.ping())
    except RedisError:
        return False


def test_a_fail_over_to_the_replica_keeps_what_was_accepted_and_takes_new_work(
    short_path: Path, tmp_path: Path
) -> None:
    """The old primary stays up as a replica: connections that lead to it have to be given up."""
    first, second = free_port(), free_port()
    with ExitStack() as stack:
        old = stack.enter_context(_valkey_on_a_port(short_path / "a", first))
        new = stack.enter_context(_valkey_on_a_port(short_path / "b", second))
        new.replicaof("127.0.0.1", str(first))
        switch = Switch(first)
        stack.callback(switch.close)
        url = f"redis://127.0.0.1:{switch.port}/0"
        gateway = stack.enter_context(
            running(GatewaySettings(data_dir=tmp_path, redis_url=url, min_free_bytes=0))
        )
        before = gateway.post(MP4).headers["Location"]
        eventually(lambda: new.exists(*old.keys("visum:summary:*")) == 1)
        new.replicaof("NO", "ONE")
        old.replicaof("127.0.0.1", str(second))
        switch.target = second
        after = gateway.post(MP4)
        assert after.status_code == 202, after.text
        assert {gateway.http.get(path).json()["status"] for path in (before, after.headers["Location"])} == {
            "queued"
        }
        assert new.llen(f"rq:queue:{QUEUE_NAME}") == 2
