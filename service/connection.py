"""The gateway's connection to Redis: it fails fast, so that a request is told and not kept."""

from __future__ import annotations

from redis import Redis
from redis import asyncio as aioredis
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import ConstantBackoff, NoBackoff
from redis.exceptions import ReadOnlyError
from redis.retry import Retry

CONNECT_S = 1.0
ANSWER_S = 5.0
RETRY_PAUSE_S = 0.05
PROBE_S = 2.0
MAX_POLLS = 64
"""Commands of the event loop that Redis is asked at once; the others wait their turn."""


def connect(url: str) -> Redis:
    """A pool of connections, opened when first used. One retry, over a new connection, gets over those that a restart
    broke and those that lead to a server which is a replica by now."""
    return Redis.from_url(
        url,
        socket_connect_timeout=CONNECT_S,
        socket_timeout=ANSWER_S,
        retry=Retry(ConstantBackoff(RETRY_PAUSE_S), 1),
        retry_on_error=[ReadOnlyError],
    )


def connect_once(url: str) -> Redis:
    """Connections that ask once: whether Redis answers now is the question."""
    return Redis.from_url(
        url, socket_connect_timeout=CONNECT_S, socket_timeout=PROBE_S, retry=Retry(NoBackoff(), 0)
    )


def connect_async(url: str) -> aioredis.Redis:
    """The same, for what is asked on the event loop, where any number of requests may ask at once."""
    pool = aioredis.BlockingConnectionPool.from_url(
        url,
        max_connections=MAX_POLLS,
        timeout=ANSWER_S,
        socket_connect_timeout=CONNECT_S,
        socket_timeout=ANSWER_S,
        retry=AsyncRetry(ConstantBackoff(RETRY_PAUSE_S), 1),
        retry_on_error=[ReadOnlyError],
    )
    return aioredis.Redis.from_pool(pool)
