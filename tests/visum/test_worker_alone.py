"""`visum worker` on its own machine: what it says when it cannot work."""

from __future__ import annotations

from redis.exceptions import ConnectionError as RedisAway

from visum.cli import _explain


def test_a_redis_that_is_away_is_one_line_that_says_what_to_do() -> None:
    line = _explain(RedisAway("Error 111 connecting to 127.0.0.1:1. Connection refused."))
    assert line is not None
    assert line.startswith("Redis does not answer: Error 111")
    assert "VISUM_REDIS_URL" in line
