"""The time of Redis, whatever the machine's own clock says."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

import pytest
from redis import Redis

from contract.clock import ServerClock


@pytest.mark.parametrize("jump_s", [86_400, -86_400])
def test_a_wall_clock_that_jumps_moves_nothing(
    redis: Redis, monkeypatch: pytest.MonkeyPatch, jump_s: int
) -> None:
    clock, real = ServerClock(redis), time.time
    before = clock()
    monkeypatch.setattr(time, "time", lambda: real() + jump_s)
    assert timedelta() <= clock() - before < timedelta(seconds=30)


def test_it_is_the_time_of_redis(redis: Redis) -> None:
    seconds, _ = redis.time()
    assert abs(ServerClock(redis)() - datetime.fromtimestamp(seconds, UTC)) < timedelta(seconds=5)
