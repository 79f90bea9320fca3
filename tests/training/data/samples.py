"""Annotations in the official shapes, small, over rendered clips of the demo world."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from training.world import Clip

ANNOTATORS = 10


def sentences(clip: Clip) -> list[str]:
    """One for each event; all but the first begin with a space, as in ActivityNet Captions."""
    first, *others = re.split(r"(?<=\.)\s", clip.summary)
    return [first, *(f" {other}" for other in others)]


def activitynet_record(clip: Clip, *, told: list[str] | None = None) -> dict[str, Any]:
    """One video's value in train.json, val_1.json or val_2.json."""
    return {
        "duration": round(clip.duration_s, 2),
        "timestamps": [[round(event.start_s, 2), round(event.end_s, 2)] for event in clip.events],
        "sentences": told or sentences(clip),
    }


def videoxum_record(video_id: str, clip: Clip) -> dict[str, Any]:
    """One object of train_videoxum.json: every annotator kept the first second of each event, half of them two."""
    frames = round(clip.duration_s)
    starts = [int(event.start_s) for event in clip.events]
    kept = [[1 if any(s <= f < s + 1 + worker % 2 for s in starts) else 0 for f in range(frames)]
            for worker in range(ANNOTATORS)]  # fmt: skip
    return {
        "video_id": video_id,
        "duration": round(clip.duration_s, 2),
        "sampled_frames": frames,
        "timestamps": [[round(event.start_s, 2), round(event.end_s, 2)] for event in clip.events],
        "tsum": sentences(clip),
        "vsum": [[[s, s + 1.0 + worker % 2] for worker in range(ANNOTATORS)] for s in starts],
        "vsum_onehot": kept,
    }


def write_json(path: Path, document: Any) -> Path:
    path.write_text(json.dumps(document))
    return path


def write_lines(path: Path, lines: Iterable[str | dict[str, Any]]) -> Path:
    """Strings as they are, objects as JSON."""
    path.write_text("".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines))
    return path
