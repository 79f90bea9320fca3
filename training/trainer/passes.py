"""The seam between the trainer and an architecture: how pairs become a batch, a loss and answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from training.trainer.method import Method
from training.trainer.samples import VideoSample

Rows = dict[str, Any]
"""How a pass's rows fall into videos: ``prompt_mask`` (V, T) and ``patches``, the rows of each video in the tower."""


@dataclass(frozen=True)
class Pair:
    """One video, what is asked of it and what is to be said."""

    frames: np.ndarray  # (T, H, W, 3) uint8
    times_s: Sequence[float]
    instruction: str
    answer: str

    @classmethod
    def of(cls, sample: VideoSample, instruction: str, turn: int = 0) -> Pair:
        """A sample with its reference of this turn."""
        answer = sample.references[turn % len(sample.references)]
        return cls(sample.frames, sample.times_s, sample.instruction or instruction, answer)


class ForwardPass(Protocol):
    """One way of running a backbone. ``read`` makes a batch of pairs, in a loader's process too."""

    read: Callable[[list[Pair]], Any]
    equal_frames: bool  # a batch must hold clips of one length

    def positions(self, frames: int) -> int:
        """Text positions of a clip of so many frames with its answer, about."""
        ...

    def rows(self, batch: Any) -> Rows:
        """What routes the batch's rows."""
        ...

    def loss(self, batch: Any, noise: torch.Generator | None) -> Tensor:
        """Mean cross-entropy of the answers' tokens; ``noise`` disturbs the pictures."""
        ...

    def answers(self, pairs: Sequence[Pair], method: Method, limit: int) -> list[str]:
        """Greedy answers with what is trained, in the order of the pairs."""
        ...

    def features(self, pair: Pair) -> Tensor:
        """The mean of the frozen vision tower's features over a video, (D,) float32."""
        ...

    def clips(self, batch: Any) -> int:
        """Videos of a batch."""
        ...
