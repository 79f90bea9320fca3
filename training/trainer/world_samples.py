"""Clips of the demo world as samples, drawn when they are asked for or read from a file that holds them drawn."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np

from training.backbone.sampling import FRAME_HEIGHT, FRAME_WIDTH, MAX_FRAMES, frame_count, sample_times
from training.trainer.samples import VideoSample
from training.world import Clip, Split, make_clip

_TRIES = 50  # scripts looked at for each clip that is short enough


class WorldSamples:
    """The first ``clips`` clips of a split with at most ``max_frames`` frames.

    With ``cache`` all frames are drawn once into one file there, which every process maps: no run draws again.
    """

    def __init__(
        self,
        domain: str,
        split: Split,
        clips: int,
        *,
        first: int = 0,
        max_frames: int = MAX_FRAMES,
        cache: Path | None = None,
    ) -> None:
        self.domain, self.split, self.first, self.max_frames = domain, split, first, max_frames
        self._seeds = self._find(clips)
        self._cache = None if cache is None else cache / f"{domain}-{split}-{first}-{clips}-{max_frames}.npy"

    def _find(self, clips: int) -> list[int]:
        found: list[int] = []
        for seed in range(self.first, self.first + _TRIES * max(clips, 1)):
            if len(found) == clips:
                break
            if frame_count(make_clip(self.domain, seed, self.split).duration_s) <= self.max_frames:
                found.append(seed)
        return found

    def __len__(self) -> int:
        return len(self._seeds)

    def __getitem__(self, index: int) -> VideoSample:
        clip = self.clip(index)
        frames = self._render(clip) if self._cache is None else self._cached(index)
        return VideoSample(self.names[index], frames, sample_times(clip.duration_s), (clip.summary,))

    def clip(self, index: int) -> Clip:
        """The script behind a sample."""
        return make_clip(self.domain, self._seeds[index], self.split)

    @cached_property
    def names(self) -> Sequence[str]:
        return [f"{self.domain}/{self.split}/{seed}" for seed in self._seeds]

    @property
    def contents(self) -> Sequence[str]:
        """A clip follows from its name."""
        return self.names

    @cached_property
    def frame_counts(self) -> Sequence[int]:
        return [frame_count(self.clip(index).duration_s) for index in range(len(self))]

    def draw(self) -> None:
        """Make the cache's file, unless it is there."""
        if self._cache is None or self._cache.exists():
            return
        self._cache.parent.mkdir(parents=True, exist_ok=True)
        partial = self._cache.with_suffix(f".{os.getpid()}.partial")
        with partial.open("wb") as file:
            shape = (sum(self.frame_counts), FRAME_HEIGHT, FRAME_WIDTH, 3)
            header = {"descr": "|u1", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(file, header)
            for index in range(len(self)):
                file.write(self._render(self.clip(index)).tobytes())
        partial.replace(self._cache)

    @staticmethod
    def _render(clip: Clip) -> np.ndarray:
        return clip.render(sample_times(clip.duration_s), width=FRAME_WIDTH, height=FRAME_HEIGHT)

    def _cached(self, index: int) -> np.ndarray:
        start = self._starts[index]
        return np.array(self._frames[start : start + self.frame_counts[index]])

    @cached_property
    def _starts(self) -> list[int]:
        return [0, *np.cumsum(self.frame_counts).tolist()]

    @cached_property
    def _frames(self) -> np.ndarray:
        self.draw()
        return np.load(self._cache, mmap_mode="r")

    def __getstate__(self) -> dict[str, object]:
        """A loader's process maps the file itself."""
        return {name: value for name, value in self.__dict__.items() if name != "_frames"}
