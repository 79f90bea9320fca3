"""Names and values of the worker's metrics."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, generate_latest

from contract.records import Stage
from workers.metrics import WorkerMetrics


def test_names_carry_their_units_and_counters_end_in_total() -> None:
    registry = CollectorRegistry()
    WorkerMetrics(registry)
    kinds = {family.name: family for family in registry.collect()}
    assert all(name.startswith("visum_") for name in kinds)
    assert "visum_stage_duration_seconds" in kinds
    text = generate_latest(registry).decode()
    for line in text.splitlines():
        if line.startswith("# TYPE") and line.endswith("counter"):
            assert line.split()[2].endswith("_total")


def test_slots_and_stages_are_counted() -> None:
    registry = CollectorRegistry()
    metrics = WorkerMetrics(registry)
    metrics.track_slots(8, 3)
    metrics.observe_stage(Stage.DECODE, 0.2)
    metrics.gate_weight.labels("traffic", "temporal", "0").observe(0.25)
    metrics.gate_weight.labels("traffic", "temporal", "0").observe(0.75)
    assert registry.get_sample_value("visum_worker_jobs_in_flight") == 3
    assert registry.get_sample_value("visum_worker_slots_free") == 5
    assert registry.get_sample_value("visum_stage_duration_seconds_count", {"stage": "decode"}) == 1
    labels = {"domain": "traffic", "group": "temporal", "expert": "0"}
    assert registry.get_sample_value("visum_gate_weight_ratio_sum", labels) == 1.0
    assert registry.get_sample_value("visum_gate_weight_ratio_count", labels) == 2
