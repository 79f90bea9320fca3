"""Three rendered clips under ActivityNet's kind of names; a test that changes the folder takes a copy."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from training.world import Clip, make_clip
from training.world.video import write_mp4


@dataclass(frozen=True)
class Videos:
    """A folder and what its videos show, by id."""

    folder: Path
    clips: dict[str, Clip]


@pytest.fixture(scope="session")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Videos:
    """Read only."""
    folder = tmp_path_factory.mktemp("rendered")
    clips = {f"v_clip{index:07d}": make_clip("sports", index, "validation") for index in range(3)}
    for video_id, clip in clips.items():
        write_mp4(clip, folder / f"{video_id}.mp4")
    return Videos(folder, clips)


@pytest.fixture
def videos(rendered: Videos, tmp_path: Path) -> Videos:
    """A copy that a test may change."""
    return Videos(Path(shutil.copytree(rendered.folder, tmp_path / "videos")), rendered.clips)
