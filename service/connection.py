"""The gateway's connection to Redis: it fails fast, so that a request is told and not kept."""

from __future__ import annotations

from redis import Redis
from redis import asyncio as aioredis
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import ConstantBackoff
from redis.retry import Retry

CONNECT_S = 1.0
ANSWER_S = 5.0
RETRY_PAUSE_S = 0.05


def connect(url: str) -> Redis:
    """A pool of connections, opened when first used. One retry gets over connections that a restart broke."""
    return Redis.from_url(
        url,
        socket_connect_timeout=CONNECT_S,
        socket_timeout=ANSWER_S,
        retry=Retry(ConstantBackoff(RETRY_PAUSE_S), 1),
    )


def connect_async(url: str) -> aioredis.Redis:
    """The same, for what is asked on the event loop."""
    return aioredis.Redis.from_url(
        url,
        socket_connect_timeout=CONNECT_S,
        socket_timeout=ANSWER_S,
        retry=AsyncRetry(ConstantBackoff(RETRY_PAUSE_S), 1),
    )
