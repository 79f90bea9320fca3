"""ActivityNet Captions' annotations (Krishna et al. 2017): train.json, val_1.json and val_2.json.

One JSON object from video id ("v_" and YouTube's id) to:

    duration     float, seconds
    timestamps   (N, 2) float: the events' starts and ends in seconds
    sentences    N sentences, one an event; most begin with a space

A video's reference is its sentences as one paragraph. The validation videos were annotated twice, in val_1.json and
val_2.json, with events of their own: name both files and each video has both references. Other keys are passed over.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError

from training.data.annotation import (
    Annotation,
    Annotations,
    activitynet_names,
    first_fault,
    paragraph,
    read_json,
)
from training.data.example import Finding


class Record(BaseModel):
    """What is said of one video in one file."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    duration: Annotated[FiniteFloat, Field(gt=0)]
    timestamps: list[tuple[FiniteFloat, FiniteFloat]]
    sentences: list[str]

    def fault(self) -> str | None:
        """What does not fit together in it, or None."""
        if not paragraph(self.sentences):
            return "sentences hold no text"
        if len(self.timestamps) != len(self.sentences):
            return f"{len(self.sentences)} sentences for {len(self.timestamps)} timestamps"
        return None


def read_activitynet(paths: Sequence[Path]) -> Annotations:
    """The annotations of one or more files; a video that several files name has a reference from each.

    Raises:
        AnnotationsUnfit: a file cannot be read or is no JSON object.
    """
    read, records = Annotations(), dict[str, list[Record]]()
    for path in paths:
        document, repeated = read_json(path, dict, "ActivityNet Captions': a JSON object of videos")
        read.duplicates += [
            Finding(key, f"annotated again in {path.name}: the first is used")
            for key in repeated
            if key in document
        ]
        for video_id, item in document.items():
            try:
                record = Record.model_validate(item)
            except ValidationError as error:
                read.unusable.append(Finding(f"{path.name}: {video_id}", first_fault(error)))
                continue
            if fault := record.fault():
                read.unusable.append(Finding(f"{path.name}: {video_id}", fault))
            else:
                records.setdefault(video_id, []).append(record)
    read.sound = [
        Annotation(
            id=video_id,
            names=activitynet_names(video_id),
            references=tuple(dict.fromkeys(paragraph(record.sentences) for record in found)),
            duration_s=found[0].duration,
        )
        for video_id, found in records.items()
    ]
    return read
