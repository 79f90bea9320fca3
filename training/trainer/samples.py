"""What a training learns from: the one seam between the trainer and whatever reads videos."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np


@dataclass(frozen=True)
class VideoSample:
    """One video as the model looks at it, and what is said of it.

    ``frames`` (T, H, W, 3) uint8 at ``times_s``, of the size that the backbone wants. The trainer learns one of
    ``references`` an epoch, in turn. ``instruction`` replaces the config's for this video.
    """

    name: str
    frames: np.ndarray
    times_s: Sequence[float]
    references: tuple[str, ...]
    instruction: str | None = None


class Samples(Protocol):
    """Samples by number, the same each time: an order is drawn over them, and a resumed run draws it again."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> VideoSample: ...

    @property
    def names(self) -> Sequence[str]:
        """A name a sample, read without decoding anything."""
        ...

    @property
    def frame_counts(self) -> Sequence[int] | None:
        """The frames of each sample, where they are known before reading it."""
        ...


@runtime_checkable
class WithFacts(Protocol):
    """Samples of which the truth is known: answers are also scored by facts."""

    def clip(self, index: int) -> object: ...


def fingerprint(samples: Samples) -> str:
    """What tells two data sets apart: the sha256 of their names, in order."""
    return hashlib.sha256("\n".join(samples.names).encode()).hexdigest()
