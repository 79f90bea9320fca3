"""The experts of a decode step: rows of any adapters, one grouped product a site, no loop over adapters.

A *site* is a set of adapted linear layers that read the same input (q, k and v of one attention). Their experts
stand in one pair of tensors over the S resident slots:

    A (S, R, in)     R is the sum of the members' ranks
    B (S, R, out)    out is the sum of the members' outputs; a member's rows are zero outside its own columns

so that a step over B rows costs two batched products a site, whatever adapters the rows use. Rows are grouped
by slot: W neighbouring slots with m places each, unused places weighed with zero. One domain is W = 1, m = B;
eight domains are W = 8, m = 1. Every adapter in use is read once, none is copied.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from milora.layers import MiloraLayer


@dataclass(frozen=True)
class Places:
    """Where the B rows of a step stand when they are grouped by slot.

    ``low`` is the first of the W slots, counted from 0. ``order`` (W·m,) is the row at each place, ``taken``
    (W·m, 1) is zero where the place is unused, and ``where`` (B,) is each row's place. The three are ``None``
    when the rows stand in that order already and every place is used.
    """

    low: int
    width: int
    each: int
    order: Tensor | None = None
    taken: Tensor | None = None
    where: Tensor | None = None

    @classmethod
    def of(cls, slots: Sequence[int], device: torch.device, *, all_slots: int = 0) -> Places:
        """The places of rows with these slots; at least one has an adapter.

        A row without one (slot 0) takes any place: its weights are zero. ``all_slots`` = S gives the same
        shape (W = S, m = B) for every mixture, as captured graphs need.
        """
        used = [slot - 1 for slot in slots if slot]
        low, high = (0, all_slots - 1) if all_slots else (min(used), max(used))
        group_of = _groups(slots, low, high - low + 1)
        rows_of = [[row for row, group in enumerate(group_of) if group == g] for g in range(high - low + 1)]
        each = len(slots) if all_slots else max(len(rows) for rows in rows_of)
        order = [row for rows in rows_of for row in [*rows, *[-1] * (each - len(rows))]]
        if order == list(range(len(slots))):
            return cls(low, high - low + 1, each)
        return cls(
            low,
            high - low + 1,
            each,
            torch.tensor([max(row, 0) for row in order], device=device),
            torch.tensor([[float(row >= 0)] for row in order], device=device),
            torch.tensor([order.index(row) for row in range(len(slots))], device=device),
        )


def _groups(slots: Sequence[int], low: int, width: int) -> list[int]:
    """The group of every row: its slot's, or for a row without an adapter the emptiest one."""
    counts = [sum(slot - 1 == low + group for slot in slots) for group in range(width)]
    groups = []
    for slot in slots:
        group = slot - 1 - low if slot else counts.index(min(counts))
        counts[group] += not slot
        groups.append(group)
    return groups


class ExpertStack(nn.Module):
    """The experts of one site. Built once; the layers' own A and B become views into it.

    Args:
        members: the site's layers in the order of their outputs, each with its number of outputs; ``None``
            where a layer is not adapted. At least one is.
    """

    def __init__(self, members: Sequence[tuple[MiloraLayer | None, int]]) -> None:
        super().__init__()
        self.members = [layer for layer, _ in members if layer is not None]
        first = self.members[0]
        slots, fan_in = first.slots, first.fan_in
        ranks, outs = sum(layer.rank_total for layer in self.members), sum(out for _, out in members)
        kind = {"device": first.A.device, "dtype": first.A.dtype}
        self.A = nn.Parameter(torch.zeros(slots, ranks, fan_in, **kind), requires_grad=False)
        self.B = nn.Parameter(torch.zeros(slots, ranks, outs, **kind), requires_grad=False)
        row = column = 0
        for layer, out in members:
            if layer is not None:
                rows, columns = slice(row, row + layer.rank_total), slice(column, column + out)
                self._adopt(layer, rows, columns)
                row += layer.rank_total
            column += out

    @torch.no_grad()
    def _adopt(self, layer: MiloraLayer, rows: slice, columns: slice) -> None:
        A, B = self.A[:, rows], self.B[:, rows, columns]
        A.copy_(layer.A)
        B.copy_(layer.B)
        layer.A.data, layer.B.data = A, B

    def forward(self, x: Tensor, y: Tensor, places: Places, weights: Tensor) -> None:
        """y (B, out) += the experts' answer to x (B, in), with weights (W, m, R); y must be contiguous."""
        width, each = places.width, places.each
        slots = slice(places.low, places.low + width)
        grouped = x if places.order is None else x.index_select(0, places.order)  # (W·m, in)
        h = torch.bmm(grouped.view(width, each, -1), self.A[slots].transpose(1, 2))  # (W, m, R)
        h.mul_(weights)
        if places.where is None:
            y.view(width, each, -1).baddbmm_(h, self.B[slots])
        else:
            y.add_(torch.bmm(h, self.B[slots]).view(width * each, -1).index_select(0, places.where))


def grouped_weights(weights: Tensor, places: Places) -> Tensor:
    """w (B, R) of every row at its place: (W, m, R), zero at the unused ones."""
    if places.order is not None:
        weights = weights.index_select(0, places.order) * places.taken.to(weights.dtype)
    return weights.view(places.width, places.each, -1)
