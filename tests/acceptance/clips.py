"""Videos of the demo world that no training has seen: two of each domain, real H.264 files."""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from training.world.splits import SPLIT_START
from training.world.video import render_folder

DOMAINS = ("cooking", "sports", "traffic", "wildlife")
SECOND_SEED = SPLIT_START["test"] + 4711


@dataclass(frozen=True)
class Video:
    """One file, the domain that it is of, and the seed of the clip that it shows."""

    path: Path
    domain: str
    seed: int


def held_out_videos(folder: Path) -> list[Video]:
    """Per domain the sample that is shipped and one more of the test split, rendered into `folder`."""
    samples = Path(str(files("visum"))) / "samples"
    found = []
    for domain in DOMAINS:
        rendered = render_folder(domain, 1, SECOND_SEED, folder / domain)
        found += [_video(samples / f"{domain}.mp4"), *map(_video, rendered)]
    return found


def _video(path: Path) -> Video:
    facts = json.loads(path.with_suffix(".json").read_text())
    return Video(path, facts["domain"], facts["seed"])
