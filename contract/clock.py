"""The time that gateway and workers agree on, whatever their own clocks say."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from redis import Redis

_ASK_AGAIN_S = 10.0


class ServerClock:
    """The time of Redis, carried on by the monotonic clock and asked for again now and then.

    A machine whose wall clock jumps neither buries results early nor keeps them for ever: every process reckons
    expiries by the one clock that all of them share. Raises RedisError when it has to ask and nobody answers.
    """

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._told: tuple[datetime, float] | None = None  # the server's time, and when it was told

    def __call__(self) -> datetime:
        told, now = self._told, time.monotonic()
        if told is None or now - told[1] > _ASK_AGAIN_S:
            seconds, microseconds = self._redis.time()
            told = (datetime.fromtimestamp(seconds, UTC) + timedelta(microseconds=microseconds), now)
            self._told = told
        return told[0] + timedelta(seconds=now - told[1])
