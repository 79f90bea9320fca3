"""What engine and adapter bank hold now, as metrics. Read from outside, so that neither knows of metrics."""

from milora import AdapterBank
from workers.adapter_desk import AdapterDesk
from workers.engine import Engine
from workers.metrics import WorkerMetrics


class Gauges:
    """Copies the state of one engine, one bank and the desk before it into the metrics on every `update`."""

    def __init__(self, metrics: WorkerMetrics, engine: Engine, bank: AdapterBank, desk: AdapterDesk) -> None:
        self._metrics, self._engine, self._bank, self._desk = metrics, engine, bank, desk
        self._counted: dict[str, int] = {}

    def update(self) -> None:
        metrics, engine, stats = self._metrics, self._engine, self._bank.stats
        slots = {"total": self._bank.slots, "resident": stats.resident, "pinned": stats.pinned}
        for state, value in slots.items():
            metrics.adapter_slots.labels(state).set(value)
        metrics.engine_rows.labels("total").set(engine.room)
        metrics.engine_rows.labels("used").set(engine.in_flight)
        metrics.adapter_host_bytes.set(self._desk.host_bytes)
        metrics.vision_cache_bytes.set(engine.vision.bytes)
        metrics.adapter_evictions.inc(self._since("evictions", stats.evictions))
        metrics.adapter_waits.inc(self._since("waits", stats.waits))
        for outcome, count in (("hit", engine.vision.hits), ("miss", engine.vision.misses)):
            metrics.vision_cache_lookups.labels(outcome).inc(self._since(outcome, count))

    def _since(self, name: str, count: int) -> int:
        """How much a count has grown since it was last asked for."""
        before = self._counted.get(name, 0)
        self._counted[name] = count
        return count - before
