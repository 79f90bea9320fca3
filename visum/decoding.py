"""The worker's decoder as training takes it, a function from a file to its frames: training imports no worker."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from contract.errors import JobFailure
from training.data.errors import VideoUnreadable
from training.data.frame_cache import Decode, VideoFrames
from training.data.reading import Probe
from workers.decode import decode
from workers.frame_plan import DecodeLimits, FramePlan

_PROBE = FramePlan(min_frames=4, max_frames=8, size_multiple=16, frame_pixels=64 * 64)
"""A few small frames over the whole length: enough to know that a file can be decoded to its end."""


def decoder(plan: FramePlan, limits: DecodeLimits | None = None) -> Decode:
    """The frames that ``plan`` asks for, each video in a process of its own. Safe to call from any thread.

    The function raises VideoUnreadable with the decoder's own sentence.
    """

    def frames(path: Path) -> VideoFrames:
        try:
            video = decode(path, plan, limits)
        except JobFailure as failure:
            raise VideoUnreadable(failure.message) from failure
        except OSError as error:
            raise VideoUnreadable(f"The file cannot be read: {error.strerror}.") from error
        return VideoFrames(video.frames, np.array(video.timestamps_s, np.float64), video.duration_s)

    return frames


def prober(limits: DecodeLimits | None = None) -> Probe:
    """Whether a file can be decoded, and how long it is in seconds."""
    frames = decoder(_PROBE, limits)
    return lambda path: frames(path).duration_s
