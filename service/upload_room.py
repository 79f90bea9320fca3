"""How many uploads one gateway reads at once, and what those under way take of the disk and of tenants' quotas."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime

from contract.errors import Code, StorageFull
from contract.quotas import Quota, Usage
from service.problems import ApiError

FORM_OVERHEAD_BYTES = 2**20  # text fields, boundaries and headers around the file
LONGEST_WAIT_S = 60
_NEWEST_SHARE = 0.2  # of the mean: about the last ten uploads count


class TooManyUploads(ApiError):
    """As many uploads as may be under way at once are; one of them will be done after about `retry_after_s`."""

    def __init__(self, limit: int, retry_after_s: int) -> None:
        super().__init__(
            Code.SERVICE_TOO_MANY_UPLOADS,
            f"{limit} uploads are under way already; try again shortly.",
            headers={"Retry-After": str(retry_after_s)},
        )


@dataclass(frozen=True, slots=True)
class Allowance:
    """What an upload finds when it begins: its tenant's bounds, what of them is used, and the room on the disk."""

    quota: Quota
    used: Usage
    free_bytes: int | None  # above the floor; None where the store has no bound
    now: datetime  # by the clock that all gateways share


class Place:
    """One upload's. Let in, it counts towards its tenant's quota and the room on the disk, until its record does."""

    def __init__(self, room: UploadRoom, tenant: str, announced_bytes: int) -> None:
        self._room, self.tenant = room, tenant
        self.announced_bytes, self.received_bytes = announced_bytes, 0
        self.allowance: Allowance | None = None
        self.is_complete = False

    @property
    def outstanding_bytes(self) -> int:
        """What was announced and has not come in yet."""
        return max(0, self.announced_bytes - self.received_bytes)

    @property
    def video_bytes(self) -> int:
        """How large the video is, at least."""
        return max(self.announced_bytes - FORM_OVERHEAD_BYTES, self.received_bytes)

    def let_in(self, allowance: Allowance) -> None:
        """It may be read, beside its tenant's others and within the room of the disk.

        Raises:
            QuotaExceeded, StorageFull.
        """
        others, used = self._room.counting(self.tenant), allowance.used
        stored_bytes = used.stored_bytes + sum(place.video_bytes for place in (*others, self))
        # What is complete counts by its record, as soon as there is one; but its place is still taken.
        unfinished = max(used.unfinished + len(others), self._room.held(self.tenant))
        allowance.quota.check(unfinished, stored_bytes)
        free, needed = allowance.free_bytes, self._room.outstanding_bytes + self.outstanding_bytes
        if free is not None and free < needed:
            raise StorageFull("the disk of the videos is at its floor")
        self.allowance = allowance

    def received(self, size: int) -> None:
        """So many bytes of the video have come in. Raises QuotaExceeded where they are more than were counted on."""
        counted = self.video_bytes
        self.received_bytes += size
        if self.allowance is not None and self.video_bytes > counted:
            under_way = sum(place.video_bytes for place in self._room.counting(self.tenant))
            self.allowance.quota.check_bytes(self.allowance.used.stored_bytes + under_way)

    def complete(self) -> None:
        """All of it is here, and its record will count: it must not do so twice."""
        self.allowance, self.is_complete = None, True


class UploadRoom:
    """Places for uploads, of one event loop."""

    def __init__(self, max_uploads: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._max_uploads = max_uploads
        self._places: set[Place] = set()
        self._mean_s: float | None = None
        self._clock = clock

    @property
    def outstanding_bytes(self) -> int:
        """What the uploads under way have announced and not sent: room on the disk that is as good as taken."""
        return sum(place.outstanding_bytes for place in self.counting())

    def counting(self, tenant: str | None = None) -> list[Place]:
        """The places that were let in, of one tenant or of all."""
        return [
            place for place in self._places if place.allowance is not None and tenant in (None, place.tenant)
        ]

    def held(self, tenant: str) -> int:
        """How many places a tenant has, those whose videos are being committed among them."""
        return sum(
            place.tenant == tenant and (place.is_complete or place.allowance is not None)
            for place in self._places
        )

    @contextmanager
    def place(self, tenant: str, announced_bytes: int) -> Iterator[Place]:
        """A place while the block lasts. Raises TooManyUploads."""
        if len(self._places) >= self._max_uploads:
            raise TooManyUploads(self._max_uploads, self._retry_after_s())
        place, began = Place(self, tenant, announced_bytes), self._clock()
        self._places.add(place)
        try:
            yield place
        finally:
            self._places.remove(place)
            self._note(self._clock() - began)

    def _note(self, seconds: float) -> None:
        mean = seconds if self._mean_s is None else self._mean_s
        self._mean_s = mean + _NEWEST_SHARE * (seconds - mean)

    def _retry_after_s(self) -> int:
        """The places are given up one after the other, in a mean upload's time all of them."""
        mean = 1.0 if self._mean_s is None else self._mean_s
        return min(max(1, math.ceil(mean / self._max_uploads)), LONGEST_WAIT_S)
