"""What one tenant may use of a service that it shares with others."""

from __future__ import annotations

from pydantic import NonNegativeInt

from contract.errors import Code, QuotaExceeded
from contract.part import Part

_UNFINISHED_RETRY_S, _STORAGE_RETRY_S = 5, 60


class Quota(Part):
    """Bounds of one tenant; 0 is none."""

    submits_per_minute: NonNegativeInt = 0
    unfinished: NonNegativeInt = 0  # summaries that wait or run
    stored_bytes: NonNegativeInt = 0  # videos kept, until their summaries expire or are deleted

    def check(self, unfinished: int, stored_bytes: int) -> None:
        """Whether there may be one more, where so many are unfinished and with it so many bytes are stored.

        Raises:
            QuotaExceeded: saying which bound is in the way.
        """
        if self.unfinished and unfinished >= self.unfinished:
            raise QuotaExceeded(
                Code.QUOTA_CONCURRENCY,
                f"{unfinished} of your summaries are unfinished or being sent, as many as may be at once.",
                _UNFINISHED_RETRY_S,
            )
        self.check_bytes(stored_bytes)

    def check_bytes(self, stored_bytes: int) -> None:
        """Raises QuotaExceeded where so many bytes are too many."""
        if self.stored_bytes and stored_bytes > self.stored_bytes:
            raise QuotaExceeded(
                Code.QUOTA_STORAGE,
                f"Your videos may take {self.stored_bytes} bytes in all, and this one is too many: delete "
                "summaries, or wait until some expire.",
                _STORAGE_RETRY_S,
            )


class Usage(Part):
    """What a tenant has, of what a Quota bounds."""

    unfinished: NonNegativeInt = 0
    stored_bytes: NonNegativeInt = 0


NO_QUOTA = Quota()
