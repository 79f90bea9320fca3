"""VideoXum's annotations (arXiv 2303.12060; train_, val_ and test_videoxum.json of the data set's home page).

One JSON list of objects. As the official README shows them, N being a video's segments:

    video_id         str, "v_" and YouTube's id, as in ActivityNet
    duration         float, seconds
    sampled_frames   int, F: frames taken at one a second
    timestamps       (N, 2) float: the segments' starts and ends in seconds
    tsum             N sentences, one a segment
    vsum             (N, 10, 2) float: the part of each segment that each of ten annotators kept
    vsum_onehot      (10, F) of 0 and 1: the same as frames of the whole video

The summary of a video is its sentences one after the other: there is one reference text. The official code joins them
with nothing in between, as most begin with a space of their own; here one space stands between any two. Other keys are
passed over. ``vsum`` and ``vsum_onehot`` may be absent: a summary can be learnt without them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, PositiveInt, ValidationError

from training.data.annotation import (
    Annotation,
    Annotations,
    activitynet_names,
    first_fault,
    paragraph,
    read_json,
)
from training.data.example import Finding

Span = tuple[FiniteFloat, FiniteFloat]


class Record(BaseModel):
    """One object of the list."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    video_id: Annotated[str, Field(min_length=1)]
    duration: Annotated[FiniteFloat, Field(gt=0)]
    sampled_frames: PositiveInt
    timestamps: list[Span]
    tsum: list[str]
    vsum: list[list[Span]] | None = None
    vsum_onehot: list[list[Literal[0, 1]]] | None = None

    def fault(self) -> str | None:
        """What does not fit together in it, or None."""
        if not paragraph(self.tsum):
            return "tsum holds no text"
        if len(self.timestamps) != len(self.tsum):
            return f"{len(self.tsum)} sentences for {len(self.timestamps)} timestamps"
        if self.vsum_onehot and {len(row) for row in self.vsum_onehot} != {self.sampled_frames}:
            return f"vsum_onehot is not {self.sampled_frames} frames long, as sampled_frames says"
        return None


def read_videoxum(paths: Sequence[Path]) -> Annotations:
    """The annotations of one or more files.

    Raises:
        AnnotationsUnfit: a file cannot be read or is no JSON list.
    """
    read, seen = Annotations(), set[str]()
    for path in paths:
        document, _ = read_json(path, list, "VideoXum's: a JSON list of videos")
        for index, item in enumerate(document):
            where = f"{path.name}: record {index}"
            try:
                record = Record.model_validate(item)
            except ValidationError as error:
                read.unusable.append(Finding(where, first_fault(error)))
                continue
            if fault := record.fault():
                read.unusable.append(Finding(f"{where} ({record.video_id})", fault))
            elif record.video_id in seen:
                read.duplicates.append(Finding(record.video_id, f"annotated again in {where}: not used"))
            else:
                seen.add(record.video_id)
                read.sound.append(_annotation(record))
    return read


def _annotation(record: Record) -> Annotation:
    return Annotation(
        id=record.video_id,
        names=activitynet_names(record.video_id),
        references=(paragraph(record.tsum),),
        duration_s=record.duration,
        key_frames=np.array(record.vsum_onehot, np.uint8) if record.vsum_onehot else None,
    )
