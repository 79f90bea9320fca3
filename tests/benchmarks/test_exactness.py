"""Where two answers part, and how close the call was."""

from __future__ import annotations

import pytest

from benchmarks.exactness import Difference, difference


@pytest.mark.parametrize(
    ("logits", "gap"), [((8.0, 7.9375), 1.0), ((8.0, 8.0), 0.0), ((1.5, 1.0), 64.0), ((0.0, 0.0), 0.0)]
)
def test_the_distance_of_the_likeliest_two_is_in_steps_of_a_bfloat16_of_their_size(
    logits: tuple[float, float], gap: float
) -> None:
    places: list[int] = []

    def likeliest(place: int) -> tuple[float, float]:
        places.append(place)
        return logits

    assert difference([5, 6, 7, 8], [5, 6, 9, 9], likeliest) == Difference(2, gap)
    assert places == [2]
