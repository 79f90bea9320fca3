"""The experts of a decode step: rows of any adapters, one grouped product a site, no loop over adapters.

A *site* is a set of adapted linear layers that read the same input (q, k and v of one attention), in blocks of
one or more. Their experts stand in stacks over the S resident slots:

    A (S, R, in)      of the site; R is the sum of its members' ranks
    B (S, R', out)    of each block; a member's rows are zero outside its own columns

so that a step over B rows costs one batched product a site and one a block, whatever adapters the rows use.
Small members share a block (k and v), where one product over some zeros is cheaper than two. Rows are grouped by
slot: W slots with m places each, unused places weighed with zero. One domain is W = 1, m = B; eight domains are W = 8,
m = 1. Where the slots in use lie close together the W are all from the lowest to the highest, and the step looks at
them where they stand. Where that is more than `SPARSE` times the places that those in use have alone, the W are these,
copied side by side when rows come or go: what a step costs does not grow with the slots that nobody uses.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from milora.layers import MiloraLayer

SPARSE = 1.5
"""To copy a slot costs little more than a step over it: from here on it is earned back within three steps."""


@dataclass(frozen=True)
class Places:
    """Where the B rows of a step stand when they are grouped by slot.

    The W slots, counted from 0, are those from ``low`` on, or ``gathered`` (W,). ``order`` (W·m,) is the row at each
    place, any where it is unused, and ``where`` (B,) is each row's place: of the others nothing is read. Both are
    ``None`` when the rows stand in that order already and every place is used.
    """

    low: int
    width: int
    each: int
    gathered: Tensor | None = None
    order: Tensor | None = None
    where: Tensor | None = None

    @classmethod
    def of(cls, slots: Sequence[int], device: torch.device, *, all_slots: int = 0) -> Places:
        """The places of rows with these slots; at least one has an adapter.

        A row without one (slot 0) takes any place: its weights are zero. ``all_slots`` = S gives the same
        shape (W = S, m = B) for every mixture, as captured graphs need.
        """
        used = list(dict.fromkeys(slot - 1 for slot in slots if slot))
        window = range(all_slots) if all_slots else range(min(used), max(used) + 1)
        rows_of = _grouped(slots, window)
        each = len(slots) if all_slots else max(map(len, rows_of))
        gathered = None
        if not all_slots:
            alone = _grouped(slots, used)
            most = max(map(len, alone))
            if len(window) * each > SPARSE * len(used) * most:
                rows_of, each, gathered = alone, most, torch.tensor(used, device=device)
        low, width = window.start, len(rows_of)
        order = [row for rows in rows_of for row in [*rows, *[-1] * (each - len(rows))]]
        if order == list(range(len(slots))):
            return cls(low, width, each, gathered)
        where = {row: place for place, row in enumerate(order)}
        return cls(
            low,
            width,
            each,
            gathered,
            torch.tensor([max(row, 0) for row in order], device=device),
            torch.tensor([where[row] for row in range(len(slots))], device=device),
        )

    def of_slots(self, stack: Tensor) -> Tensor:
        """The W slots of a stack (S, …): a view where they are neighbours, else a copy."""
        if self.gathered is None:
            return stack[self.low : self.low + self.width]
        return stack.index_select(0, self.gathered)


def _grouped(slots: Sequence[int], groups: Sequence[int]) -> list[list[int]]:
    """The rows of every group, that is of a slot counted from 0; a row without an adapter goes to the emptiest one."""
    counts = dict.fromkeys(groups, 0)
    for slot in slots:
        if slot:
            counts[slot - 1] += 1
    rows_of: dict[int, list[int]] = {group: [] for group in groups}
    for row, slot in enumerate(slots):
        group = slot - 1 if slot else min(counts, key=counts.__getitem__)
        counts[group] += not slot
        rows_of[group].append(row)
    return list(rows_of.values())


Block = Sequence[tuple[MiloraLayer | None, int]]
"""Neighbouring layers of a site, each with its number of outputs; ``None`` where a layer is not adapted."""


class ExpertStack:
    """The experts of one site. Built once; the layers' own A and B become views into it.

    Args:
        blocks: the site's layers in the order of their outputs. At least one of them is adapted.
    """

    def __init__(self, blocks: Sequence[Block]) -> None:
        self.members = [layer for block in blocks for layer, _ in block if layer is not None]
        first = self.members[0]
        self.rank = sum(layer.rank_total for layer in self.members)
        self.A = first.A.new_zeros(first.slots, self.rank, first.fan_in)
        #: B of every block that has experts, with the ranks and the columns of the site that are its own.
        self.blocks: list[tuple[Tensor, slice, slice]] = []
        rank = column = 0
        for block in blocks:
            ranks = sum(layer.rank_total for layer, _ in block if layer is not None)
            columns = sum(out for _, out in block)
            if ranks:
                B = first.B.new_zeros(first.slots, ranks, columns)
                self._adopt(block, self.A[:, rank : rank + ranks], B)
                self.blocks.append((B, slice(rank, rank + ranks), slice(column, column + columns)))
            rank, column = rank + ranks, column + columns

    @staticmethod
    @torch.no_grad()
    def _adopt(block: Block, A: Tensor, B: Tensor) -> None:
        """Move the experts of a block's layers into their places, and let the layers look at them there."""
        rank = column = 0
        for layer, out in block:
            if layer is not None:
                ranks, columns = slice(rank, rank + layer.rank_total), slice(column, column + out)
                A[:, ranks].copy_(layer.A)
                B[:, ranks, columns].copy_(layer.B)
                layer.A.data, layer.B.data = A[:, ranks], B[:, ranks, columns]
                rank += layer.rank_total
            column += out

    def speaks(self, slots: Iterable[int]) -> bool:
        """Whether the adapter of any of these slots has experts here."""
        return any(layer.config_of[slot - 1] is not None for slot in slots for layer in self.members)

    def arranged(self, weights: Tensor, places: Places) -> ArrangedExperts | OneDomain:
        """The slots in use as a step multiplies by them; ``weights`` (B, R) are those of every row."""
        if places.width == 1 and places.order is None:
            one = places.low
            blocks = tuple((B[one], ranks, columns) for B, ranks, columns in self.blocks)
            return OneDomain(self.A[one].t(), blocks, weights.to(self.A.dtype))
        if places.order is not None:
            weights = weights.index_select(0, places.order)
        grouped = weights.to(self.A.dtype).view(places.width, places.each, -1)
        blocks = tuple((places.of_slots(B), ranks, columns) for B, ranks, columns in self.blocks)
        return ArrangedExperts(places.of_slots(self.A).transpose(1, 2), blocks, grouped, places)


@dataclass(frozen=True)
class OneDomain:
    """One site's experts where all rows have the same adapter: A (in, R), B (R', out) of every block with its ranks and
    columns, and the rows' weights (B, R). Plain products cost less to call than grouped ones."""

    A: Tensor
    blocks: tuple[tuple[Tensor, slice, slice], ...]
    weights: Tensor

    def add(self, x: Tensor, y: Tensor) -> None:
        """y (B, out) += the experts' answer to x (B, in)."""
        h = torch.mm(x, self.A).mul_(self.weights)  # (B, R)
        for B, ranks, columns in self.blocks:
            y[:, columns].addmm_(h[:, ranks], B)


@dataclass(frozen=True)
class ArrangedExperts:
    """One site's experts for rows of several adapters: of the W slots A (W, in, R), B (W, R', out) of every block with
    its ranks and columns, and the rows' weights (W, m, R), zero at unused places."""

    A: Tensor
    blocks: tuple[tuple[Tensor, slice, slice], ...]
    weights: Tensor
    places: Places

    def add(self, x: Tensor, y: Tensor) -> None:
        """y (B, out) += the experts' answer to x (B, in)."""
        order, where = self.places.order, self.places.where
        width, each = self.places.width, self.places.each
        grouped = x if order is None else x.index_select(0, order)  # (W·m, in)
        h = torch.bmm(grouped.view(width, each, -1), self.A).mul_(self.weights)  # (W, m, R)
        for B, ranks, columns in self.blocks:
            answer = torch.bmm(h[:, :, ranks], B).view(width * each, -1)  # (W·m, out)
            y[:, columns].add_(answer if where is None else answer.index_select(0, where))
