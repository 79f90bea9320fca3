"""Which moments of a clip the model looks at, and the sizes of a frame, its patches and its tokens.

The moments equal those of the stock ``VideoLlama3VideoProcessor``. Free of torch: the renderers import this.
"""

import math

FRAME_WIDTH, FRAME_HEIGHT = 64, 48
PATCH, MERGE = 8, 2
PATCH_ROWS, PATCH_COLUMNS = FRAME_HEIGHT // PATCH, FRAME_WIDTH // PATCH  # 6, 8
TOKEN_ROWS, TOKEN_COLUMNS = PATCH_ROWS // MERGE, PATCH_COLUMNS // MERGE  # 3, 4
PATCHES_PER_FRAME = PATCH_ROWS * PATCH_COLUMNS  # 48
TOKENS_PER_FRAME = TOKEN_ROWS * TOKEN_COLUMNS  # 12
FRAME_PIXELS = FRAME_WIDTH * FRAME_HEIGHT  # 3072
MIN_FRAMES, MAX_FRAMES = 4, 16
VIDEO_FPS = 24


def frame_count(duration_s: float) -> int:
    """Frames taken of a clip: one a second, at least 4, at most 16."""
    total = max(1, round(duration_s * VIDEO_FPS))
    return math.floor(min(max(total / VIDEO_FPS, MIN_FRAMES), MAX_FRAMES, total))


def sample_times(duration_s: float) -> list[float]:
    """Times in seconds of the frames that ``VideoLlama3VideoProcessor.sample_frames(fps=1)`` would take."""
    total = max(1, round(duration_s * VIDEO_FPS))
    count = frame_count(duration_s)
    return [min(int(i * total / count), total - 1) / VIDEO_FPS for i in range(count)]
