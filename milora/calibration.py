"""Mean and spread of the gates' inputs, so that gates train on standardized features."""

from __future__ import annotations

import torch
from torch import Tensor

from milora.errors import MiloraError
from milora.layers import MiloraLayer

#: A feature that hardly varies over the clips would be blown up by its own tiny deviation; this share of the
#: layer's root-mean-square deviation is the least that a feature is divided by.
STD_FLOOR = 0.05


class GateCalibration:
    """Collects z of every layer over some passes, then standardizes each layer's gate by it."""

    def __init__(self) -> None:
        self._seen: dict[int, list[Tensor]] = {}

    def observe(self, index: int, z: Tensor) -> None:
        """Keep the pooled inputs (V, in) of one pass at one layer."""
        self._seen.setdefault(index, []).append(z.detach().double())

    def apply(self, layer: MiloraLayer) -> None:
        """Standardize one layer's gate input by what was observed there.

        Raises:
            MiloraError: fewer than two videos were seen.
        """
        seen = self._seen.get(layer.index, [])
        z = torch.cat(seen) if seen else torch.empty(0, layer.fan_in)
        if z.shape[0] < 2:
            raise MiloraError(f"{layer.name}: calibration saw {z.shape[0]} videos, it needs at least 2")
        std = z.std(0)
        floor = STD_FLOOR * std.square().mean().sqrt() + 1e-6
        layer.standardize(z.mean(0), torch.maximum(std, floor))
