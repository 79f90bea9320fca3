"""How a whole picture can look other than as it was drawn, with nothing lost."""

from __future__ import annotations

from typing import Literal

import numpy as np

Look = Literal["plain", "negative"]


def seen_as(look: Look, frames: np.ndarray) -> np.ndarray:
    """Frames (..., 3) uint8 in a look: ``negative`` is photographic film, red is cyan and white is black."""
    return 255 - frames if look == "negative" else frames
