"""A process that reads videos through a shared cache; ends with 1 if it ever gets another video's frames."""

from __future__ import annotations

import random
import sys
from pathlib import Path

import numpy as np

from training.data.frame_cache import FrameCache, VideoFrames

SIDE = 32


def decode(path: Path) -> VideoFrames:
    """Four frames that are all of the number in the file's name."""
    frames = np.full((4, SIDE, SIDE, 3), int(path.stem), np.uint8)
    return VideoFrames(frames, np.arange(4.0), 4.0)


def main(videos: Path, folder: Path, max_bytes: int, seed: int, reads: int) -> int:
    cache = FrameCache(folder, max_bytes, decode, {"max_frames": 4})
    chance = random.Random(seed)
    paths = sorted(videos.iterdir())
    for path in (chance.choice(paths) for _ in range(reads)):
        if not (cache.frames(path).frames == int(path.stem)).all():
            return 1
    return 0


if __name__ == "__main__":
    videos, folder, *numbers = sys.argv[1:]
    sys.exit(main(Path(videos), Path(folder), *map(int, numbers)))
