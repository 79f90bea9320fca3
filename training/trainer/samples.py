"""What a training learns from: the one seam between the trainer and whatever reads videos."""

from __future__ import annotations

import hashlib
import json
import random
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
    def contents(self) -> Sequence[str]:
        """What tells a sample from another of its name, its references above all; read without decoding anything."""
        ...

    @property
    def frame_counts(self) -> Sequence[int] | None:
        """The frames of each sample, where they are known before reading it."""
        ...


@runtime_checkable
class WithFacts(Protocol):
    """Samples of which the truth is known: answers are also scored by facts."""

    def clip(self, index: int) -> object: ...


class Subset:
    """Some of the samples, by number."""

    def __init__(self, samples: Samples, indices: Sequence[int]) -> None:
        self._samples, self._indices = samples, list(indices)

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: int) -> VideoSample:
        return self._samples[self._indices[index]]

    @property
    def names(self) -> Sequence[str]:
        names = self._samples.names
        return [names[index] for index in self._indices]

    @property
    def contents(self) -> Sequence[str]:
        contents = self._samples.contents
        return [contents[index] for index in self._indices]

    @property
    def frame_counts(self) -> Sequence[int] | None:
        counts = self._samples.frame_counts
        return None if counts is None else [counts[index] for index in self._indices]


def held_out(samples: Samples, share: float, seed: int) -> tuple[Subset, Subset]:
    """The samples to learn from and those to measure on, one of each at least; the same each time."""
    order = random.Random(seed).sample(range(len(samples)), len(samples))
    count = min(max(1, round(share * len(samples))), max(0, len(samples) - 1))
    return Subset(samples, sorted(order[count:])), Subset(samples, sorted(order[:count]))


def fingerprint(samples: Samples) -> str:
    """What tells two data sets apart: the sha256 of their names and contents, in order."""
    return hashlib.sha256(
        json.dumps([*zip(samples.names, samples.contents, strict=True)]).encode()
    ).hexdigest()
