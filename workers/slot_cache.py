"""Keys and values of the rows in flight, in memory that is planned at start and never grows."""

import torch
from torch import Tensor
from transformers import DynamicCache


class SlotCache:
    """One block of `length` positions for every layer and row.

    A row's positions are filled from 0 on; what stands behind the filled ones is never looked at. Rows are kept
    without holes: the last one moves into the place of one that leaves.
    """

    def __init__(
        self,
        *,
        layers: int,
        rows: int,
        length: int,
        heads: int,
        head_width: int,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        self.rows, self.length, self.heads, self.head_width = rows, length, heads, head_width
        shape = (layers, 2, rows, length, heads, head_width)
        # Written at once, so that whoever plans next on this machine sees that it is taken.
        self._blocks = torch.zeros(shape, dtype=dtype, device=device)
        #: Per layer and for keys and values: (rows·length, heads·D), where a step writes.
        self._flat = self._blocks.view(layers, 2, rows * length, heads * head_width).unbind(0)
        #: The same as (rows, length, heads, D), where it reads.
        self._by_row = self._blocks.unbind(0)

    def write(
        self, layer: int, places: Tensor, keys: Tensor, values: Tensor, rows: int, span: int
    ) -> tuple[Tensor, Tensor]:
        """Add one position to each of the first B rows, and return what they may look at.

        Args:
            places: (B,) row · length + position.
            keys, values: (B, heads, D).
            span: T, the positions returned.

        Returns:
            keys and values (B, heads, T, D).
        """
        flat, by_row = self._flat[layer], self._by_row[layer]
        flat[0].index_copy_(0, places, keys.flatten(1))
        flat[1].index_copy_(0, places, values.flatten(1))
        return by_row[0, :rows, :span].transpose(1, 2), by_row[1, :rows, :span].transpose(1, 2)

    def fill(self, row: int, prefilled: DynamicCache, index: int, length: int) -> None:
        """Take over the first `length` positions of one request of a prefill."""
        for block, layer in zip(self._by_row, prefilled.layers, strict=True):
            block[0, row, :length] = layer.keys[index, :, :length].transpose(0, 1)
            block[1, row, :length] = layer.values[index, :, :length].transpose(0, 1)

    def move(self, row: int, to: int, length: int) -> None:
        """Copy the first `length` positions of one row over another."""
        self._blocks[:, :, to, :length] = self._blocks[:, :, row, :length]
