"""Whether the Redis that was given keeps what is answered for. A 202 promises no more than Redis' own log does."""

from __future__ import annotations

import logging

from redis import Redis
from redis.exceptions import RedisError, ResponseError

log = logging.getLogger(__name__)

_LOSES = {
    "appendonly": ("yes", "a restart of Redis forgets accepted summaries"),
    "appendfsync": ("always", "a power cut forgets the last accepted summaries"),
    "maxmemory-policy": ("noeviction", "summaries and leases vanish when Redis is full"),
}


def warn_of_losses(redis: Redis) -> None:
    """Say loudly, once, what this Redis may forget; and where it does not tell, that nobody knows."""
    try:
        told = {name: value for option in _LOSES for name, value in redis.config_get(option).items()}
    except ResponseError as refused:  # CONFIG is renamed, or not for this user, as at many providers
        log.warning(
            "Redis does not say how it keeps what it is given (CONFIG GET: %s). Accepted summaries survive a power "
            "cut only with appendonly yes, appendfsync always and maxmemory-policy noeviction.",
            type(refused).__name__,
        )
        return
    except RedisError as away:
        log.warning("Redis could not be asked how it keeps what it is given (%s)", type(away).__name__)
        return
    for option, (wanted, loss) in _LOSES.items():
        if told.get(option) != wanted:
            log.warning("REDIS MAY LOSE WORK: %s is %s, not %s: %s", option, told.get(option), wanted, loss)
