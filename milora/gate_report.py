"""A request's gates in numbers a person reads."""

from __future__ import annotations

import math
from dataclasses import dataclass

from milora.config import GROUPS, GroupName
from milora.routing import GateRecord


@dataclass(frozen=True)
class LayerGate:
    """g of one layer: K weights that sum to one."""

    name: str
    group: GroupName
    experts: tuple[float, ...]


@dataclass(frozen=True)
class GroupGate:
    """The means over a group's layers of the weights (K,) and of their entropy in nats."""

    experts: tuple[float, ...]
    entropy: float


@dataclass(frozen=True)
class GateReport:
    """Every layer's gate and the summary of each group that has any."""

    layers: tuple[LayerGate, ...]
    groups: dict[GroupName, GroupGate]


def gate_report(record: GateRecord) -> GateReport:
    """What one request's gates were, per layer and per group; empty for a request without an adapter."""
    gates = record.gates.cpu().tolist()
    layers = tuple(
        LayerGate(info.name, info.group, tuple(gates[i][: info.experts]))
        for i, info in enumerate(record.layers)
        if info is not None
    )
    by_group = {group: [layer.experts for layer in layers if layer.group == group] for group in GROUPS}
    return GateReport(layers, {group: _summary(rows) for group, rows in by_group.items() if rows})


def _summary(rows: list[tuple[float, ...]]) -> GroupGate:
    mean = tuple(sum(column) / len(rows) for column in zip(*rows, strict=True))
    return GroupGate(mean, sum(_entropy(row) for row in rows) / len(rows))


def _entropy(gate: tuple[float, ...]) -> float:
    return -sum(g * math.log(g) for g in gate if g > 0)
