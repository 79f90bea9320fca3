"""The worker's connection to Redis: it is patient, so that work that was begun is not lost."""

from redis import Redis
from redis.backoff import ExponentialBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ReadOnlyError
from redis.exceptions import TimeoutError as RedisTimeoutError
from redis.retry import Retry

_REDIS_TRIES = 8


def connect(url: str) -> Redis:
    """Connections that get over a restart of Redis, and over one that lost its place to a replica: a lost or refused
    command is sent again for about half a minute, over a new connection."""
    return Redis.from_url(
        url,
        socket_connect_timeout=5,
        socket_timeout=15,
        health_check_interval=30,
        retry=Retry(ExponentialBackoff(cap=8, base=0.1), _REDIS_TRIES),
        retry_on_error=[RedisConnectionError, RedisTimeoutError, ReadOnlyError],
    )
