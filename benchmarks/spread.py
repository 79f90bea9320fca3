"""What repeats of one measurement come to."""

from __future__ import annotations

from collections.abc import Iterable
from statistics import median

from pydantic import BaseModel, ConfigDict


class Spread(BaseModel):
    """Median, smallest and largest of `count` repeats."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    median: float
    low: float
    high: float
    count: int

    @classmethod
    def of(cls, values: Iterable[float]) -> Spread:
        """
        Raises:
            ValueError: there are no values.
        """
        found = list(values)
        if not found:
            raise ValueError("nothing was measured")
        return cls(median=median(found), low=min(found), high=max(found), count=len(found))
