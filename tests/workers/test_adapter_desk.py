"""Adapters on their way from disk to a slot, while nobody waits for them and while somebody does."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from contract.errors import Code, JobFailure
from milora import AdapterBank, inject
from model_store.backbone import Backbone
from model_store.manifest import WEIGHTS_FILE
from model_store.registry import AdapterRegistry
from tests.workers.adapters import publish_random
from tests.workers.service import wait_until
from workers.adapter_desk import AdapterDesk
from workers.control import JobControl, Stopped, StopReason
from workers.expert_room import room_for
from workers.metrics import WorkerMetrics

SLOTS = 2


class Desk:
    """A desk over a store, with what stands behind it in sight."""

    def __init__(self, backbone: Backbone, store: Path) -> None:
        registry = AdapterRegistry([store / "adapters"], backbone_fingerprint=backbone.fingerprint)
        self.handle = inject(backbone.model, room_for([], experts=3, rank=2), slots=SLOTS)
        self.bank = AdapterBank(self.handle)
        self.metrics = CollectorRegistry()
        self.desk = AdapterDesk(
            registry,
            backbone,
            self.bank,
            WorkerMetrics(self.metrics),
            host_bytes=1 << 20,
            recognition_bytes=1 << 20,
        )

    def domains(self) -> set[str]:
        return {key[0] for key in self.bank.resident()}

    def count(self, name: str, **labels: str) -> float:
        return self.metrics.get_sample_value(name, labels) or 0.0


@pytest.fixture
def on(backbone: Backbone, four_domains: Path) -> Iterator[Desk]:
    desk = Desk(backbone, four_domains)
    yield desk
    desk.handle.remove()


def control() -> JobControl:
    return JobControl("job", 60.0)


def test_a_prefetched_adapter_is_resident_and_nobodys(on: Desk) -> None:
    on.desk.prefetch("traffic", None)
    wait_until(lambda: on.domains() == {"traffic"}, "the adapter is resident", 30)
    wait_until(lambda: on.bank.stats.pinned == 0, "it is let go", 30)
    with on.desk.pinned("traffic", None, control()) as adapter:
        assert (adapter.domain, adapter.version) == ("traffic", 1)
        assert on.bank.stats.pinned == 1
    assert on.bank.stats.misses == 1
    assert on.count("visum_adapter_hits_total") == 1


def test_a_prefetch_evicts_nobody_and_is_ready_in_host_memory(on: Desk, four_domains: Path) -> None:
    with on.desk.pinned("traffic", None, control()), on.desk.pinned("sports", None, control()):
        pass  # both stay in their slots, though nobody uses them
    on.desk.prefetch("cooking", None)
    on.desk.prefetch("nowhere", None)
    on.desk._ahead.shutdown(wait=True)
    assert on.domains() == {"traffic", "sports"}
    weights = four_domains / "adapters" / "cooking" / "1" / WEIGHTS_FILE
    weights.chmod(0o644)
    weights.write_bytes(b"gone")  # what was prefetched to the host needs no disk any more
    with on.desk.pinned("cooking", None, control()) as adapter:
        assert adapter.version == 1


def test_the_generation_of_the_experts_that_look_at_a_video_is_told(
    on: Desk, backbone: Backbone, four_domains: Path
) -> None:
    publish_random(backbone, four_domains, "sports", 9, one_group=True)
    with on.desk.pinned("traffic", None, control()) as both, on.desk.pinned("sports", None, control()) as one:
        assert both.vision is not None
        assert both.vision[:2] == ("traffic", 1)
        assert (one.version, one.vision) == (2, None)


def test_a_request_for_a_ninth_domain_waits_until_a_slot_is_free(on: Desk) -> None:
    taken = on.desk.pinned("traffic", None, control())
    with on.desk.pinned("sports", None, control()):
        taken.__enter__()
        entered = threading.Event()

        def wait_for_a_slot() -> None:
            with on.desk.pinned("cooking", None, control()):
                entered.set()

        thread = threading.Thread(target=wait_for_a_slot)
        thread.start()
        assert not entered.wait(timeout=0.2)
        taken.__exit__(None, None, None)
        assert entered.wait(timeout=30)
        thread.join(timeout=30)


def test_a_job_that_is_stopped_while_it_waits_for_a_slot_ends(on: Desk) -> None:
    waiting = control()
    waiting.request_stop(StopReason.CANCELED)
    with (
        on.desk.pinned("traffic", None, control()),
        on.desk.pinned("sports", None, control()),
        pytest.raises(Stopped),
        on.desk.pinned("cooking", None, waiting),
    ):
        pass


def test_a_damaged_adapter_is_refused_and_the_slots_stay_as_they_were(on: Desk, four_domains: Path) -> None:
    path = four_domains / "adapters" / "cooking" / "1" / WEIGHTS_FILE
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with on.desk.pinned("traffic", None, control()):
        with pytest.raises(JobFailure) as refused, on.desk.pinned("cooking", None, control()):
            pass
        assert refused.value.code is Code.ADAPTER_REFUSED
        assert refused.value.message == "Version 1 of 'cooking' can't be used."
        assert on.domains() == {"traffic"}


def test_a_hundred_domains_cost_a_named_one_nothing(
    on: Desk, backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[Path] = []
    look = AdapterRegistry._look
    monkeypatch.setattr(
        AdapterRegistry, "_look", lambda self, folder: (looked.append(folder), look(self, folder))[1]
    )
    with on.desk.pinned("traffic", None, control()):
        pass
    assert {folder.parent.name for folder in looked} == {"traffic"}


def test_a_recognized_domain_whose_adapter_is_damaged_is_told_before_it_is_chosen(
    on: Desk, four_domains: Path
) -> None:
    path = four_domains / "adapters" / "cooking" / "1" / WEIGHTS_FILE
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    assert not on.desk.sound("cooking")
    assert on.desk.sound("traffic")
    with on.desk.pinned("traffic", None, control()) as adapter:
        assert adapter.version == 1
