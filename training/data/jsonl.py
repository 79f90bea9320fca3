"""Plain pairs, a JSON object a line: ``{"video": "clip-0001", "summary": "What happens in it."}``.

``video`` is a file's name, with or without its ending, or its path below the folder of videos. Lines that name the same
video are several references of it. Blank lines separate nothing and say nothing; every other line that is not exactly
such an object is unusable, and is told with its number.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, StringConstraints, ValidationError

from training.data.annotation import Annotation, Annotations, first_fault, paragraph, read_text
from training.data.example import Finding

Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]


class Line(BaseModel):
    """One pair."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    video: Text
    summary: Text


def read_jsonl(paths: Sequence[Path]) -> Annotations:
    """The pairs of one or more files.

    Raises:
        AnnotationsUnfit: a file cannot be read.
    """
    read, references = Annotations(), dict[str, list[str]]()
    for path in paths:
        for number, text in enumerate(read_text(path).removeprefix(b"\xef\xbb\xbf").splitlines(), start=1):
            if not text.strip():
                continue
            where = f"{path.name}: line {number}"
            try:
                line = Line.model_validate_json(text)
            except ValidationError as error:
                read.unusable.append(Finding(where, first_fault(error)))
                continue
            told, summary = references.setdefault(line.video, []), paragraph([line.summary])
            if summary in told:
                read.duplicates.append(Finding(line.video, f"the same summary again in {where}: used once"))
            else:
                told.append(summary)
    read.sound = [Annotation(video, (video,), tuple(texts)) for video, texts in references.items()]
    return read
