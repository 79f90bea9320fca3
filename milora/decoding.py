"""The experts of all sites of a decode loop, and the rank weights of every row in flight.

    experts = DecodeExperts(handle, sites, rows=8)      once; the layers' tensors move into the sites' stacks
    experts.join(row, record)                           a request takes a row, with the gates of its prefill
    experts.move(row, to)                               rows close up when one has left
    arrangement = experts.arrange(slots)                once for every set of rows, not once a step
    arrangement[i].add(x, y)                            in every step, for every site that has experts

Gates are never computed here: they are those of the prefill (prompt-aware routing, arXiv 2410.18035).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from milora.errors import RoutingError
from milora.layers import MiloraLayer
from milora.model import MiloraModel
from milora.routing import GateRecord
from milora.stack import ArrangedExperts, ExpertStack, OneDomain, Places

Site = tuple[tuple[tuple[str, int], ...], ...]
"""The linear layers that read one input, in the order of their outputs and in blocks: (module name, outputs)."""


Arrangement = tuple[ArrangedExperts | OneDomain | None, ...]
"""The experts of every site for the rows of a step, ``None`` where none of their adapters has any."""


class DecodeExperts:
    """Rows of a decode loop, numbered from 0 without holes, and how strongly each expert speaks in them.

    Args:
        handle: the injected model. Its layers' tensors become views into the sites' stacks.
        sites: every group of linear layers of the loop that read one input, adapted or not.
        rows: how many rows there can be.
    """

    def __init__(self, handle: MiloraModel, sites: Sequence[Site], rows: int) -> None:
        self._handle = handle
        layers: Mapping[str, MiloraLayer] = {layer.name: layer for layer in handle.layers}
        self.stacks = [_stack(site, layers) for site in sites]
        self._weights = [
            None if stack is None else torch.zeros(rows, stack.rank, device=handle.device)
            for stack in self.stacks
        ]

    def join(self, row: int, record: GateRecord | None) -> None:
        """Give a row to a request: its gates as weights on its own adapter's ranks, zero without an adapter.

        Raises:
            RoutingError: the record lacks a gate of a layer that the adapter has experts in.
        """
        coefficients = self._handle.fusion.coefficients()
        for stack, weights in zip(self.stacks, self._weights, strict=True):
            if stack is None or weights is None:
                continue
            if record is None or record.slot == 0:
                weights[row] = 0.0
                continue
            slot, parts = record.slot, []
            for layer in stack.members:
                if record.layers[layer.index] is None and layer.config_of[slot - 1] is not None:
                    raise RoutingError(f"{layer.name}: the request has no gate for it to reuse")
                c = None if coefficients is None else coefficients[layer.group][slot - 1]
                parts.append(layer.rank_weights(slot, record.gates[layer.index], c))
            torch.cat(parts, out=weights[row])

    def move(self, row: int, to: int) -> None:
        """Put the request of one row into another."""
        for weights in self._weights:
            if weights is not None:
                weights[to] = weights[row]

    def arrange(self, slots: Sequence[int], *, same_shape: bool = False) -> Arrangement | None:
        """The first rows by slot; ``None`` when no row has an adapter. ``same_shape`` for compiled steps."""
        if not any(slots):
            return None
        every = self._handle.slots if same_shape else 0
        places = Places.of(slots, self._handle.device, all_slots=every)
        used = {slot for slot in slots if slot}
        return tuple(
            stack.arranged(weights[: len(slots)], places)
            if stack is not None and weights is not None and (same_shape or stack.speaks(used))
            else None
            for stack, weights in zip(self.stacks, self._weights, strict=True)
        )


def _stack(site: Site, layers: Mapping[str, MiloraLayer]) -> ExpertStack | None:
    blocks = [[(layers.get(name), outputs) for name, outputs in block] for block in site]
    adapted = any(layer is not None for block in blocks for layer, _ in block)
    return ExpertStack(blocks) if adapted else None
