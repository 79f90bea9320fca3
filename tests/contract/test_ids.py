"""Summary ids."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract.ids import created_at, is_id, new_id

MOMENTS = st.datetimes(datetime(2000, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC))


@given(MOMENTS)
def test_an_id_carries_its_moment_to_the_millisecond(moment: datetime) -> None:
    assert abs(created_at(new_id(moment)) - moment) <= timedelta(milliseconds=1)


@given(MOMENTS, st.integers(2, 10**6))
def test_a_later_id_sorts_after_an_earlier_one(moment: datetime, milliseconds: int) -> None:
    assert new_id(moment) < new_id(moment + timedelta(milliseconds=milliseconds))


def test_ids_of_one_moment_differ() -> None:
    now = datetime.now(UTC)
    assert len({new_id(now) for _ in range(1000)}) == 1000


@pytest.mark.parametrize(
    "text",
    ["", "x", "../../../etc/passwd", "8" + "0" * 25, "0" * 25, "0" * 27, "0" * 25 + "U", "0" * 26 + "\n"],
)
def test_what_is_no_id_is_told_apart(text: str) -> None:
    assert not is_id(text)
    with pytest.raises(ValueError, match="is not a summary id"):
        created_at(text)
