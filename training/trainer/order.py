"""In which order clips are learned: a function of the seed and the step alone, so that a resumed run goes on in it."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence

Batch = list[int]


class Order:
    """An endless row of batches, epoch after epoch.

    Args:
        clips: how many there are.
        frame_counts: of each; given, a batch holds clips of one length only.
        size_of: clips a batch, of clips with so many frames (0: not known).
    """

    def __init__(
        self, clips: int, frame_counts: Sequence[int] | None, size_of: Callable[[int], int], seed: int
    ) -> None:
        self._clips, self._frames, self._size_of, self._seed = clips, frame_counts, size_of, seed
        self.per_epoch = len(self.epoch(0))

    def epoch(self, number: int) -> list[Batch]:
        """The batches of one epoch; every clip is in one of them."""
        rng = random.Random(f"{self._seed}/{number}")
        order = rng.sample(range(self._clips), self._clips)
        by_frames: dict[int, list[int]] = defaultdict(list)
        for index in order:
            by_frames[self._frames[index] if self._frames is not None else 0].append(index)
        batches = []
        for frames, members in sorted(by_frames.items()):
            size = max(1, self._size_of(frames))
            batches += [members[i : i + size] for i in range(0, len(members), size)]
        rng.shuffle(batches)
        return batches

    def after(self, batches: int, *, every: int = 1) -> Iterator[tuple[int, Batch]]:
        """(epoch, batch) from one place in the row on, each ``every``-th."""
        epoch, place = divmod(batches, self.per_epoch)
        current = self.epoch(epoch)
        while True:
            yield epoch, current[place]
            place += every
            while place >= self.per_epoch:
                epoch, place = epoch + 1, place - self.per_epoch
                current = self.epoch(epoch)
