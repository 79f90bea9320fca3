"""Which frames of a video are looked at, and at what size. Plain arithmetic, shared by both sides of the sandbox."""

import math
from dataclasses import dataclass
from fractions import Fraction

_MAX_ASPECT = 200
_FLOOR_SLACK = Fraction(1, 1000)
"""Container clocks round to milliseconds: 11.9999 s of 1 fps material is twelve frames, not eleven."""


@dataclass(frozen=True)
class FramePlan:
    """What the backbone wants of a video.

    Sizes are in pixels. `max_pixels` bounds all frames of a video together and `frame_pixels` is the
    exact budget of a single frame; where it is set, it replaces the other two.
    """

    fps: float = 1.0
    min_frames: int = 4
    max_frames: int = 128
    size_multiple: int = 28
    min_pixels: int = 128 * 28 * 28
    max_pixels: int = 28 * 28 * 768
    frame_pixels: int | None = None

    def indices(self, total: int, duration_s: Fraction | float) -> list[int]:
        """Indices of the frames to keep, spread over the whole length.

        As `VideoLlama3VideoProcessor.sample_frames` with `fps`: n = clamp(duration x fps, min, max, total),
        then every (total / n)-th frame.
        """
        wanted = math.floor(Fraction(duration_s) * Fraction(self.fps) + _FLOOR_SLACK)
        count = min(max(wanted, self.min_frames), self.max_frames, total)
        return [i * total // count for i in range(count)]

    def most_tokens(self) -> int:
        """The most video tokens that frames of this plan make, one for every square of `size_multiple` pixels."""
        budget = self.max_frames * (self.frame_pixels or self.min_pixels)
        if self.frame_pixels is None:
            budget = max(budget, self.max_pixels)
        return math.ceil(budget / self.size_multiple**2)

    def frame_size(self, height: int, width: int, count: int) -> tuple[int, int]:
        """(height, width) that a frame is scaled to when `count` frames are kept.

        Raises:
            ValueError: if the picture is so narrow that no sensible size exists.
        """
        if self.frame_pixels is not None:
            return fit_pixels(height, width, self.size_multiple, self.frame_pixels, self.frame_pixels)
        return fit_pixels(height, width, self.size_multiple, self.min_pixels, self.max_pixels // count)


@dataclass(frozen=True)
class DecodeLimits:
    """What one video may cost before its decoding process is ended.

    A picture's pixels and a video's frames are counted before anything is decoded; `max_expansion` is the most bytes
    of pictures that a byte of video may become. `threads` 0: as many as there are CPUs for each video that is being
    decoded when this one starts. `cpu_s` is for one thread; a process that has more of them may use as much more.
    `require_sandbox`: better no frames than frames of a process that is not confined in every layer.
    """

    wall_s: float = 120.0
    cpu_s: int = 240
    memory_bytes: int = 2 << 30
    max_duration_s: float = 4 * 3600.0
    max_picture_pixels: int = 8192 * 4320
    max_frames: int = 1_000_000
    max_expansion: int = 100_000
    threads: int = 0
    require_sandbox: bool = False


def fit_pixels(height: int, width: int, multiple: int, min_pixels: int, max_pixels: int) -> tuple[int, int]:
    """The (height, width) nearest to the picture's shape, in multiples, with min <= pixels <= max where possible.

    The rule of `VideoLlama3VideoProcessor`'s smart_resize, so that frames scaled here are what it would have made.

    Raises:
        ValueError: if one side is over 200 times the other.
    """
    if max(height, width) > _MAX_ASPECT * min(height, width):
        raise ValueError(f"a picture of {width}x{height} is too narrow to be scaled")
    rows, columns = (max(multiple, round(side / multiple) * multiple) for side in (height, width))
    if rows * columns > max_pixels:
        shrink = math.sqrt(height * width / max_pixels)
        rows, columns = (
            max(multiple, math.floor(side / shrink / multiple) * multiple) for side in (height, width)
        )
    elif rows * columns < min_pixels:
        grow = math.sqrt(min_pixels / (height * width))
        rows, columns = (math.ceil(side * grow / multiple) * multiple for side in (height, width))
    return rows, columns
