"""A connection that never sends a whole head is closed; one that does is left alone."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest
import uvicorn

from tests.service.wire import eventually
from visum import impatient_http

OK = b"HTTP/1.1 200 OK"


async def _app(scope, receive, send) -> None:
    assert scope["type"] == "http"
    if scope["path"] == "/large":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for last in [False] * 63 + [True]:
            await send({"type": "http.response.body", "body": bytes(1 << 16), "more_body": not last})
        return
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
    await send({"type": "http.response.body", "body": b""})


def _refused(link: socket.socket, data: bytes) -> bool:
    """Send and send, until the connection is no more."""
    try:
        while True:
            link.sendall(data)
    except TimeoutError:
        return False
    except ConnectionError:
        return True


@pytest.fixture
def port(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    monkeypatch.setattr(impatient_http, "HEAD_TIMEOUT_S", 0.3)
    monkeypatch.setattr(impatient_http, "READ_TIMEOUT_S", 0.3)
    config = uvicorn.Config(
        _app,
        port=0,
        http=impatient_http.ImpatientProtocol,
        lifespan="off",
        log_level="error",
        timeout_keep_alive=60,
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    eventually(lambda: server.started)
    yield server.servers[0].sockets[0].getsockname()[1]
    server.should_exit = True
    thread.join(timeout=15)


@pytest.mark.parametrize("sent", [b"", b"GET / HT", b"GET / HTTP/1.1\r\nHost: x\r\n"])
def test_a_head_that_does_not_end_ends_the_connection(port: int, sent: bytes) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=30) as link:
        link.sendall(sent)
        assert link.recv(100) == b""


def test_a_second_head_that_does_not_end_ends_it_as_well(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=30) as link:
        link.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert link.recv(1000).startswith(OK)
        link.sendall(b"GET / HTTP/1.1\r\n")
        assert link.recv(100) == b""


def test_whole_heads_keep_the_connection(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=30) as link:
        for _ in range(3):
            link.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            assert link.recv(1000).startswith(OK)


@pytest.mark.parametrize("asked", [b"GET /large", b"GET /"], ids=["one large answer", "many small ones"])
def test_a_client_that_does_not_read_is_let_go_of(port: int, asked: bytes) -> None:
    with socket.socket() as link:
        link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        link.settimeout(30)
        link.connect(("127.0.0.1", port))
        assert _refused(link, (asked + b" HTTP/1.1\r\nHost: x\r\n\r\n") * 500)


def test_one_that_reads_slowly_gets_all_of_it(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=30) as link:
        link.sendall(b"GET /large HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        read = 0
        while part := link.recv(1 << 15):
            read += len(part)
            threading.Event().wait(0.01)  # 128 pieces: several times as long as anybody may hold still
    assert read > 64 << 16
