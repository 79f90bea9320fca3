"""Loaded once for all who wait, within a budget of bytes."""

from __future__ import annotations

import threading
from dataclasses import dataclass

import pytest

from workers.host_tier import HostTier


@dataclass
class Thing:
    bytes: int


def test_what_is_held_is_not_loaded_again() -> None:
    tier: HostTier[Thing] = HostTier(100)
    first = tier.get("a", lambda: Thing(10))
    assert tier.get("a", lambda: pytest.fail("loaded twice")) is first


def test_the_least_recently_used_goes_when_the_budget_is_spent() -> None:
    tier: HostTier[Thing] = HostTier(100)
    for key in "ab":
        tier.get(key, lambda: Thing(40))
    tier.get("a", lambda: pytest.fail("a is held"))
    tier.get("c", lambda: Thing(40))
    assert tier.bytes == 80
    tier.get("a", lambda: pytest.fail("a is held"))
    assert tier.get("b", lambda: Thing(39)).bytes == 39


def test_one_that_is_larger_than_the_budget_is_held_until_the_next_comes() -> None:
    tier: HostTier[Thing] = HostTier(10)
    large = tier.get("large", lambda: Thing(50))
    assert tier.get("large", lambda: pytest.fail("held")) is large
    tier.get("next", lambda: Thing(5))
    assert tier.bytes == 5


def test_threads_that_want_the_same_key_share_one_load() -> None:
    tier: HostTier[Thing] = HostTier(100)
    began, go = threading.Event(), threading.Event()
    loads, found = [], []

    def slow() -> Thing:
        loads.append(1)
        began.set()
        assert go.wait(timeout=30)
        return Thing(1)

    threads = [threading.Thread(target=lambda: found.append(tier.get("a", slow))) for _ in range(4)]
    for thread in threads:
        thread.start()
    assert began.wait(timeout=30)
    assert tier.get("b", lambda: Thing(2)).bytes == 2  # others are not held up
    go.set()
    for thread in threads:
        thread.join(timeout=30)
    assert len(loads) == 1
    assert len(found) == 4
    assert len({id(thing) for thing in found}) == 1


def test_a_load_that_fails_is_tried_again_by_the_next_who_asks() -> None:
    tier: HostTier[Thing] = HostTier(100)
    with pytest.raises(OSError, match="gone"):
        tier.get("a", lambda: (_ for _ in ()).throw(OSError("gone")))
    assert tier.get("a", lambda: Thing(1)).bytes == 1
