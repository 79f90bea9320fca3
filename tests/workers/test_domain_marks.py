"""What domains are recognized by: read once and alone, within a budget, and never from a damaged file."""

from __future__ import annotations

from pathlib import Path

import pytest

from model_store.adapters import load_prototype
from model_store.backbone import Backbone
from model_store.errors import AdapterRefused
from model_store.manifest import GATES_FILE, ROUTER_FILE, WEIGHTS_FILE
from model_store.registry import AdapterEntry, AdapterRegistry
from tests.workers.adapters import publish_random
from tests.workers.conftest import DOMAINS
from workers.domain_marks import DomainMarks

ROOMY = 1 << 20


class Marks:
    """Marks of a store, with what they read and refuse in sight."""

    def __init__(self, store: Path, budget: int, monkeypatch: pytest.MonkeyPatch) -> None:
        self.registry = AdapterRegistry([store / "adapters"])
        self.looks, self.read, self.refused = 0, list[str](), list[str]()
        entries = self.registry.entries

        def look() -> list[AdapterEntry]:
            self.looks += 1
            return entries()

        def read(entry: AdapterEntry) -> object:
            self.read.append(entry.domain)
            return load_prototype(entry)

        monkeypatch.setattr(self.registry, "entries", look)
        monkeypatch.setattr("workers.domain_marks.load_prototype", read)
        self.marks = DomainMarks(self.registry, budget, self._refuse)

    def _refuse(self, entry: AdapterEntry, refusal: AdapterRefused) -> None:
        self.refused.append(f"{entry.domain}/{entry.version}")
        self.registry.refuse(entry, refusal.reason)

    def means(self) -> dict[str, float]:
        return {domain: mark.mean[0].item() for domain, mark in self.marks}


def spoil(path: Path) -> None:
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[:-1] + b"x")


def test_videos_of_one_second_share_one_look_at_the_store_and_one_reading_of_every_mark(
    four_domains: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.domain_marks.LOOK_AGAIN_S", 600.0)
    on = Marks(four_domains, ROOMY, monkeypatch)
    for _ in range(3):
        assert on.means() == {domain: float(seed) for seed, domain in enumerate(DOMAINS, start=1)}
    assert (on.looks, on.read) == (1, list(DOMAINS))


def test_a_later_look_finds_what_was_published_and_forgets_what_it_replaced(
    backbone: Backbone, four_domains: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.domain_marks.LOOK_AGAIN_S", 0.0)
    on = Marks(four_domains, ROOMY, monkeypatch)
    on.means()
    held = on.marks.bytes
    for seed in (11, 12):
        publish_random(backbone, four_domains, "traffic", seed)
        assert on.means()["traffic"] == seed
    assert on.marks.bytes == held


def test_marks_beyond_the_budget_are_read_anew_and_not_kept(
    four_domains: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = Marks(four_domains, ROOMY, monkeypatch)
    expected = whole.means()
    on = Marks(four_domains, whole.marks.bytes // 2, monkeypatch)
    assert on.means() == on.means() == expected
    assert on.marks.bytes == whole.marks.bytes // 2
    assert on.read == [*DOMAINS, *DOMAINS[2:]]


def test_nothing_of_an_adapter_is_read_but_its_mark(
    four_domains: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (WEIGHTS_FILE, GATES_FILE):
        spoil(four_domains / "adapters" / "sports" / "1" / name)
    on = Marks(four_domains, ROOMY, monkeypatch)
    assert "sports" in on.means()
    assert on.refused == []


def test_a_damaged_mark_costs_its_version_and_the_one_before_it_is_recognized(
    backbone: Backbone, four_domains: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish_random(backbone, four_domains, "traffic", 11)
    spoil(four_domains / "adapters" / "traffic" / "2" / ROUTER_FILE)
    spoil(four_domains / "adapters" / "sports" / "1" / ROUTER_FILE)
    on = Marks(four_domains, ROOMY, monkeypatch)
    assert on.means() == {"cooking": 1.0, "traffic": 3.0, "wildlife": 4.0}
    assert on.refused == ["sports/1", "traffic/2"]
