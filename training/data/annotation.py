"""What a reader of a format gives: annotations without their videos, and the lines that are none."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from training.data.errors import AnnotationsUnfit
from training.data.example import Finding

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True, eq=False)
class Annotation:
    """What is said of one video. ``names`` are the names that its file may have, the likeliest first."""

    id: str
    names: tuple[str, ...]
    references: tuple[str, ...]
    duration_s: float | None = None
    key_frames: np.ndarray | None = None


@dataclass
class Annotations:
    """The sound ones in their order, and findings about the others."""

    sound: list[Annotation] = field(default_factory=list)
    unusable: list[Finding] = field(default_factory=list)
    duplicates: list[Finding] = field(default_factory=list)


def paragraph(sentences: Iterable[str]) -> str:
    """Sentences as one text, with one space between words. ActivityNet's begin and end with spaces of their own."""
    return " ".join(" ".join(sentences).split())


def activitynet_names(video_id: str) -> tuple[str, ...]:
    """``v_`` and YouTube's id is ActivityNet's name of a video; downloaders often leave the ``v_`` out."""
    return (video_id, video_id.removeprefix("v_")) if video_id.startswith("v_") else (video_id,)


def read_text(path: Path) -> bytes:
    """A file of annotations.

    Raises:
        AnnotationsUnfit: it cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise AnnotationsUnfit(f"The annotations {path} cannot be read: {error.strerror}") from error


def read_json(path: Path, kind: type, shape: str) -> tuple[Any, list[str]]:
    """A JSON document that is a ``kind`` at its top, and the keys that an object in it has more than once.

    Raises:
        AnnotationsUnfit: it cannot be read, or is not of that shape.
    """
    repeated: list[str] = []

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in pairs:
            if key in found:
                repeated.append(key)
            else:
                found[key] = value  # the first, as said in the finding; json itself would keep the last
        return found

    try:
        document = json.loads(read_text(path), object_pairs_hook=once)
    except ValueError as error:
        raise AnnotationsUnfit(f"The annotations {path} are no JSON: {error}") from error
    if not isinstance(document, kind):
        raise AnnotationsUnfit(f"The annotations {path} are not {shape}")
    return document, repeated


def first_fault(error: ValidationError) -> str:
    """The first of a record's faults, as one phrase."""
    fault = error.errors(include_url=False)[0]
    where = ".".join(str(part) for part in fault["loc"])
    if fault["type"] == "extra_forbidden":
        return f"unknown key '{where}'"
    if fault["type"] == "missing":
        return f"no key '{where}'"
    return f"{where}: {fault['msg']}" if where else fault["msg"]
