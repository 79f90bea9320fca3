"""At its start a gateway says what the Redis that it was given may forget."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis import Redis

from tests.service.conftest import StartGateway
from visum.valkey import EmbeddedValkey


@pytest.fixture
def foreign(short_path: Path) -> Iterator[Redis]:
    """A server of the test's own, which it may configure as somebody else would."""
    valkey = EmbeddedValkey(short_path / "foreign")
    process = valkey.start()
    with Redis.from_url(valkey.url) as redis:
        yield redis
    process.terminate()
    process.wait(timeout=20)


def address(redis: Redis, user: str = "") -> str:
    return f"unix://{user}{redis.connection_pool.connection_kwargs['path']}"


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "service.durability"]


@pytest.mark.parametrize(
    ("option", "value", "loss"),
    [
        ("appendonly", "no", "a restart of Redis forgets accepted summaries"),
        ("appendfsync", "everysec", "a power cut forgets the last accepted summaries"),
        ("maxmemory-policy", "allkeys-lru", "summaries and leases vanish when Redis is full"),
    ],
)
def test_a_redis_that_may_lose_work_is_said_loudly(
    foreign: Redis,
    start_gateway: StartGateway,
    caplog: pytest.LogCaptureFixture,
    option: str,
    value: str,
    loss: str,
) -> None:
    foreign.config_set(option, value)
    start_gateway(redis_url=address(foreign))
    [line] = said(caplog)
    assert line.startswith(f"REDIS MAY LOSE WORK: {option} is {value}, not ")
    assert line.endswith(loss)


def test_a_redis_that_loses_nothing_is_not_spoken_of(
    foreign: Redis, start_gateway: StartGateway, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "service"):
        start_gateway(redis_url=address(foreign))
    assert said(caplog) == []


def test_where_redis_may_not_be_asked_that_is_said(
    foreign: Redis, start_gateway: StartGateway, caplog: pytest.LogCaptureFixture
) -> None:
    foreign.acl_setuser(
        "tenant", enabled=True, passwords=["+p"], keys=["*"], categories=["+@all"], commands=["-config"]
    )
    start_gateway(redis_url=address(foreign, "tenant:p@"))
    [line] = said(caplog)
    assert line.startswith("Redis does not say how it keeps what it is given (CONFIG GET: NoPermissionError)")
    assert "appendfsync always" in line


def test_a_redis_that_is_away_at_the_start_is_said_not_to_have_been_asked(
    short_path: Path, start_gateway: StartGateway, caplog: pytest.LogCaptureFixture
) -> None:
    start_gateway(redis_url=f"unix://{short_path}/nobody.sock")
    assert said(caplog) == ["Redis could not be asked how it keeps what it is given (ConnectionError)"]
