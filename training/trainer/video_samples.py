"""A user's own videos as samples: a list of videos with their summaries, and a function that gives frames."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from training.trainer.samples import VideoSample


class Described(Protocol):
    """One video and what people wrote of it."""

    id: str
    path: Path
    references: tuple[str, ...]


class Frames(Protocol):
    """(T, H, W, 3) uint8 frames of the size that the backbone wants, and their (T,) seconds."""

    frames: np.ndarray
    timestamps_s: np.ndarray


class VideoSamples:
    """Samples over files. ``read`` gives a file's frames, best from a cache: it is asked once an epoch."""

    frame_counts = None  # not known before a video is read

    def __init__(self, examples: Sequence[Described], read: Callable[[Path], Frames]) -> None:
        self._examples, self._read = list(examples), read

    def __len__(self) -> int:
        return len(self._examples)

    def __getitem__(self, index: int) -> VideoSample:
        example = self._examples[index]
        seen = self._read(example.path)
        return VideoSample(example.id, seen.frames, [float(t) for t in seen.timestamps_s], example.references)

    @property
    def names(self) -> Sequence[str]:
        return [example.id for example in self._examples]

    @property
    def contents(self) -> Sequence[str]:
        """The references; a file that was exchanged under its name is not noticed."""
        return ["\n".join(example.references) for example in self._examples]
