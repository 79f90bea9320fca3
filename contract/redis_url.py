"""The address of Redis in settings. It may hold a password, so what is wrong with it is said without it."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator


def check_redis_url(url: str) -> str:
    """The address, if it is one.

    Raises:
        ValueError: saying what an address looks like.
    """
    from redis.connection import parse_url  # here: the command line reads settings, and rarely needs Redis

    try:
        parse_url(url)
    except ValueError:  # its words may quote a piece of the password
        raise ValueError(
            "an address looks like redis://HOST:6379/0, rediss://USER:PASSWORD@HOST:6379/0 (TLS) or "
            "unix:///PATH, with signs like / # ? of a password written as %2F %23 %3F"
        ) from None
    return url


RedisUrl = Annotated[str, AfterValidator(check_redis_url)]
