"""Clips as arrays, made ahead of their use by processes of their own. Free of torch."""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context

import numpy as np

from training.backbone.dense_labels import FrameLabels, label_frames
from training.backbone.sampling import FRAME_HEIGHT, FRAME_WIDTH, frame_count, sample_times
from training.world import make_clip

PIECE = 60  # clips that a renderer makes at a time


@dataclass(frozen=True)
class Shard:
    """A run of seeds, of which the clips of at most ``max_frames`` frames are used, ``clips`` of them."""

    number: int
    domain: str
    split: str
    first_seed: int
    clips: int
    max_frames: int = 16
    labelled: bool = False

    def seeds(self) -> list[int]:
        """The seeds of the clips that are short enough. A shard may look at ten seeds for each clip wanted."""
        found = []
        for seed in range(self.first_seed, self.first_seed + 10 * self.clips):
            if frame_count(make_clip(self.domain, seed, self.split).duration_s) <= self.max_frames:
                found.append(seed)
                if len(found) == self.clips:
                    break
        return found


@dataclass(frozen=True)
class Sample:
    """One clip as the model sees it: ``frames`` ``(T, 48, 64, 3) uint8`` at ``times_s``, and its reference."""

    seed: int
    frames: np.ndarray
    times_s: list[float]
    summary: str
    labels: FrameLabels | None


def render_sample(domain: str, seed: int, split: str, labelled: bool = False) -> Sample:
    """Draw one clip at the moments that the model looks at."""
    clip = make_clip(domain, seed, split)
    times = sample_times(clip.duration_s)
    frames = clip.render(times, width=FRAME_WIDTH, height=FRAME_HEIGHT)
    labels = label_frames(clip.labels(times)) if labelled else None
    return Sample(seed, frames, times, clip.summary, labels)


def render_piece(domain: str, seeds: list[int], split: str, labelled: bool) -> list[Sample]:
    """What a renderer process runs."""
    return [render_sample(domain, seed, split, labelled) for seed in seeds]


def render_shards(
    shards: Iterator[Shard], renderers: int, ahead: int = 2
) -> Iterator[tuple[Shard, list[Sample]]]:
    """The shards' clips in order, drawn by ``renderers`` processes (0: in this one), ``ahead`` shards in advance."""
    if renderers == 0:
        for shard in shards:
            yield shard, render_piece(shard.domain, shard.seeds(), shard.split, shard.labelled)
        return
    waiting: deque[tuple[Shard, list[Future]]] = deque()
    with ProcessPoolExecutor(renderers, mp_context=get_context("spawn")) as pool:
        try:
            for shard in shards:
                seeds = shard.seeds()
                pieces = [seeds[i : i + PIECE] for i in range(0, len(seeds), PIECE)]
                work = [
                    pool.submit(render_piece, shard.domain, p, shard.split, shard.labelled) for p in pieces
                ]
                waiting.append((shard, work))
                if len(waiting) > ahead:
                    yield _collect(*waiting.popleft())
            while waiting:
                yield _collect(*waiting.popleft())
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _collect(shard: Shard, work: list[Future]) -> tuple[Shard, list[Sample]]:
    return shard, [sample for future in work for sample in future.result()]
