"""The worker's decoder as training takes it, a function from a file to its frames: training imports no worker."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from contract.errors import JobFailure
from training.data.errors import VideoUnreadable
from training.data.frame_cache import VideoFrames
from training.data.reading import Probe
from workers.decode import decode
from workers.frame_plan import DecodeLimits, FramePlan

_PROBE = FramePlan(min_frames=4, max_frames=8, size_multiple=16, frame_pixels=64 * 64)
"""A few small frames over the whole length: enough to know that a file can be decoded to its end."""


@dataclass(frozen=True)
class Decoder:
    """The frames that ``plan`` asks for, each video in a process of its own. Safe to call from any thread; a loader's
    process gets a copy."""

    plan: FramePlan
    limits: DecodeLimits | None = None

    def __call__(self, path: Path) -> VideoFrames:
        """
        Raises:
            VideoUnreadable: with the decoder's own sentence.
        """
        try:
            video = decode(path, self.plan, self.limits)
        except JobFailure as failure:
            raise VideoUnreadable(failure.message) from failure
        except OSError as error:
            raise VideoUnreadable(f"The file cannot be read: {error.strerror}.") from error
        return VideoFrames(video.frames, np.array(video.timestamps_s, np.float64), video.duration_s)


def prober(limits: DecodeLimits | None = None) -> Probe:
    """Whether a file can be decoded, and how long it is in seconds."""
    frames = Decoder(_PROBE, limits)
    return lambda path: frames(path).duration_s
