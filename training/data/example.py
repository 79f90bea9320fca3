"""What reading a data set gives: the pairs that can be used, and a report of all that cannot.

No numpy at import: the command line reads the format's names from here.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np


class Format(StrEnum):
    """The formats of annotations that can be read."""

    VIDEOXUM = "videoxum"
    ACTIVITYNET = "activitynet"
    JSONL = "jsonl"


@dataclass(frozen=True, eq=False)
class Example:
    """One video with what people wrote of it.

    ``references`` has at least one text. ``duration_s`` is the annotations', None where they say none. ``key_frames``
    is (A, F) uint8: which of F frames, one a second from the start, each of A annotators kept.
    """

    id: str
    path: Path
    references: tuple[str, ...]
    duration_s: float | None = None
    key_frames: np.ndarray | None = None

    @property
    def frame_scores(self) -> np.ndarray | None:
        """(F,) float64: the share of annotators that kept each frame."""
        return None if self.key_frames is None else self.key_frames.mean(axis=0)


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong: the video, file or line, and why."""

    what: str
    why: str


@dataclass(frozen=True)
class Report:
    """All that was found on the way to the usable examples; nothing is left out in silence.

    ``annotated`` counts the videos that sound annotations name. ``missing`` ones have no file. ``unreadable`` files
    were probed and give no frames; None where nothing was probed. ``duplicates`` say in each case what was done.
    ``unusable`` are lines and records that say nothing that can be learnt from. ``other_length`` videos are used, but
    are not as long as their annotations say. ``unnamed`` are video files that no annotation names.
    """

    annotated: int
    usable: int
    missing: tuple[str, ...] = ()
    unreadable: tuple[Finding, ...] | None = None
    duplicates: tuple[Finding, ...] = ()
    unusable: tuple[Finding, ...] = ()
    other_length: tuple[Finding, ...] = ()
    unnamed: tuple[str, ...] = ()


@dataclass(frozen=True)
class Dataset:
    """Usable examples, in the annotations' order, and the report."""

    format: Format
    examples: tuple[Example, ...]
    report: Report = field(repr=False)
