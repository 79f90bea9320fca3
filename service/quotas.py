"""Tenants' quotas: which one is whose, and how often each may submit."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping

from limits import RateLimitItemPerMinute
from limits.storage import RedisStorage
from limits.strategies import SlidingWindowCounterRateLimiter
from redis import Redis

from contract.errors import Code, QuotaExceeded
from contract.quotas import NO_QUOTA, Quota
from service.access import Caller


class TenantQuotas:
    """Every tenant has `usual`, except where `own` says otherwise: what a quota there leaves unsaid is as usual.

    Who is let in without a key has none: there is nobody to share with.
    """

    def __init__(self, redis: Redis, usual: Quota, own: Mapping[str, Quota]) -> None:
        self._usual, self._own = usual, own
        # The counters are in Redis: all gateways count together, and its clock is the one that counts.
        storage = RedisStorage("redis://", connection_pool=redis.connection_pool, key_prefix="visum:rate")
        self._rates = SlidingWindowCounterRateLimiter(storage)

    def of(self, caller: Caller) -> Quota:
        """That of the caller's tenant."""
        if caller.key_id is None:
            return NO_QUOTA
        own = self._own.get(caller.tenant)
        return (
            self._usual if own is None else self._usual.model_copy(update=own.model_dump(exclude_unset=True))
        )

    def count_submit(self, caller: Caller) -> None:
        """One more request to submit. Raises QuotaExceeded (then it is not counted), RedisError."""
        rate = self.of(caller).submits_per_minute
        if not rate:
            return
        limit = RateLimitItemPerMinute(rate)
        if not self._rates.hit(limit, caller.tenant):
            wait_s = self._rates.get_window_stats(limit, caller.tenant).reset_time - time.time()
            raise QuotaExceeded(
                Code.QUOTA_RATE, f"You may submit {rate} videos a minute.", max(1, math.ceil(wait_s))
            )
