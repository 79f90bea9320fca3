"""What the engine and the bank hold, as an operator sees it."""

from __future__ import annotations

from pathlib import Path

from prometheus_client import CollectorRegistry

from milora import AdapterBank
from model_store.backbone import Backbone
from model_store.registry import AdapterRegistry
from tests.workers.adapters import random_state
from tests.workers.requests import engine_of, experts_of, request_of, turn
from workers.adapter_desk import AdapterDesk
from workers.gauges import Gauges
from workers.metrics import WorkerMetrics


def test_rows_slots_pins_and_the_vision_cache_are_what_they_are_now(
    backbone: Backbone, four_domains: Path
) -> None:
    registry = CollectorRegistry()
    experts = experts_of(backbone, 2)
    try:
        bank = AdapterBank(experts)
        engine = engine_of(backbone, experts, max_batch=3)
        metrics = WorkerMetrics(registry)
        store = AdapterRegistry([four_domains / "adapters"], backbone_fingerprint=backbone.fingerprint)
        desk = AdapterDesk(store, backbone, bank, metrics, host_bytes=1 << 20, recognition_bytes=1 << 20)
        gauges = Gauges(metrics, engine, bank, desk)

        def value(name: str, **labels: str) -> float | None:
            return registry.get_sample_value(name, labels)

        slot = bank.acquire("a", lambda: random_state(backbone, 1))
        future = engine.submit(request_of(backbone, 1, slot=slot, vision_key="video"))
        engine.step()
        gauges.update()
        gauges.update()
        slots = {s: value("visum_adapter_slots", state=s) for s in ("total", "resident", "pinned")}
        assert slots == {"total": 2, "resident": 1, "pinned": 1}
        assert {s: value("visum_engine_rows", state=s) for s in ("total", "used")} == {"total": 3, "used": 1}
        assert value("visum_vision_cache_bytes") == engine.vision.bytes > 0
        assert value("visum_vision_cache_lookups_total", outcome="miss") == 1
        assert value("visum_adapter_host_bytes") == 0
        turn(engine, [future])
        bank.release("a")
        for key in "bc":
            bank.release(key if bank.acquire(key, lambda: random_state(backbone, 2)) else None)
        assert desk.sound("traffic")
        gauges.update()
        assert value("visum_adapter_host_bytes") == desk.host_bytes > 0
        assert value("visum_engine_rows", state="used") == 0
        assert value("visum_adapter_slots", state="pinned") == 0
        assert value("visum_adapter_evictions_total") == 1
        assert value("visum_adapter_waits_total") == 0
    finally:
        experts.remove()
