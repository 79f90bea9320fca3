"""How many uploads one gateway reads at once, and how much disk those under way are still going to take."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager

from contract.errors import Code
from service.problems import ApiError

LONGEST_WAIT_S = 60
_NEWEST_SHARE = 0.2  # of the mean: about the last ten uploads count


class TooManyUploads(ApiError):
    """As many uploads as may be under way at once are; one of them will be done after about `retry_after_s`."""

    def __init__(self, limit: int, retry_after_s: int) -> None:
        super().__init__(
            Code.SERVICE_TOO_MANY_UPLOADS, f"{limit} uploads are under way already; try again shortly."
        )
        self.retry_after_s = retry_after_s


class Place:
    """One upload's: the bytes that it announced and that have not come in yet."""

    def __init__(self, announced_bytes: int) -> None:
        self.outstanding_bytes = announced_bytes

    def received(self, size: int) -> None:
        self.outstanding_bytes = max(0, self.outstanding_bytes - size)


class UploadRoom:
    """Places for uploads, of one event loop."""

    def __init__(self, max_uploads: int) -> None:
        self._max_uploads = max_uploads
        self._places: set[Place] = set()
        self._mean_s: float | None = None

    @property
    def outstanding_bytes(self) -> int:
        """What the uploads under way have announced and not sent: room on the disk that is as good as taken."""
        return sum(place.outstanding_bytes for place in self._places)

    @contextmanager
    def place(self, announced_bytes: int) -> Iterator[Place]:
        """A place while the block lasts. Raises TooManyUploads."""
        if len(self._places) >= self._max_uploads:
            raise TooManyUploads(self._max_uploads, self._retry_after_s())
        place, began = Place(announced_bytes), time.monotonic()
        self._places.add(place)
        try:
            yield place
        finally:
            self._places.remove(place)
            self._note(time.monotonic() - began)

    def _note(self, seconds: float) -> None:
        mean = seconds if self._mean_s is None else self._mean_s
        self._mean_s = mean + _NEWEST_SHARE * (seconds - mean)

    def _retry_after_s(self) -> int:
        """The places are given up one after the other, in a mean upload's time all of them."""
        mean = 1.0 if self._mean_s is None else self._mean_s
        return min(max(1, math.ceil(mean / self._max_uploads)), LONGEST_WAIT_S)
