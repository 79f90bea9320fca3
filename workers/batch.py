"""The requests in flight and what the model remembers of them."""

import time
from concurrent.futures import Future
from dataclasses import dataclass, field

import torch
from torch.nn import functional as F
from transformers import DynamicCache

from milora import GateRecord
from workers.request import EngineAnswer, EngineRequest


@dataclass(eq=False)
class Sequence:
    """One request on its way.

    Prefill fills `gates` and the two times; every step appends to `generated`. `ids` is prompt plus answer.
    """

    request: EngineRequest
    future: "Future[EngineAnswer]"
    generator: torch.Generator | None
    submitted: float = field(default_factory=time.monotonic)
    generated: list[int] = field(default_factory=list)
    gates: GateRecord | None = None
    prefill_began: float = 0.0
    prefill_ended: float = 0.0

    @property
    def ids(self) -> list[int]:
        return [*self.request.prompt.input_ids.tolist(), *self.generated]

    def restart(self) -> None:
        """Forget what was generated; the same seed gives the same answer again."""
        self.generated.clear()
        self.gates = None
        self.prefill_ended = 0.0
        if self.generator is not None and self.request.seed is not None:
            self.generator.manual_seed(self.request.seed)


class Batch:
    """B sequences decoded together, left-padded to the longest.

    `cache` holds keys and values (B, H, L, D) per layer, `mask` (B, L) is one where a position is real.
    """

    def __init__(self, sequences: list[Sequence], cache: DynamicCache, mask: torch.Tensor) -> None:
        self.sequences = sequences
        self.cache = cache
        self.mask = mask

    def __len__(self) -> int:
        return len(self.sequences)

    @property
    def length(self) -> int:
        """L, positions in the cache, padding included."""
        return int(self.mask.shape[1])

    def join(self, other: "Batch") -> None:
        """Take over the rows of another batch."""
        length = max(self.length, other.length)
        for mine, theirs in zip(self.cache.layers, other.cache.layers, strict=True):
            mine.keys = torch.cat([_pad_left(mine.keys, length), _pad_left(theirs.keys, length)])
            mine.values = torch.cat([_pad_left(mine.values, length), _pad_left(theirs.values, length)])
        masks = [F.pad(mask, (length - mask.shape[1], 0)) for mask in (self.mask, other.mask)]
        self.mask = torch.cat(masks)
        self.sequences += other.sequences

    def keep(self, rows: list[int]) -> None:
        """Drop every row but these, and the padding that none of them needs."""
        index = torch.tensor(rows, device=self.mask.device)
        mask = self.mask.index_select(0, index)
        start = int(mask.argmax(1).min())  # the first real position of the longest row
        for layer in self.cache.layers:
            layer.keys = layer.keys.index_select(0, index)[:, :, start:]
            layer.values = layer.values.index_select(0, index)[:, :, start:]
        self.mask = mask[:, start:]
        self.sequences = [self.sequences[row] for row in rows]

    def rewind(self, length: int) -> None:
        """Forget positions after the first `length`: some layers may have taken in a token in a pass that failed."""
        for layer in self.cache.layers:
            layer.keys, layer.values = layer.keys[:, :, :length], layer.values[:, :, :length]
        self.mask = self.mask[:, :length]


def _pad_left(states: torch.Tensor, length: int) -> torch.Tensor:
    """(B, H, L, D) with zeros in front up to `length` positions."""
    return F.pad(states, (0, 0, length - states.shape[2], 0))
