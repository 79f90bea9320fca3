"""`visum train` on a user's own mp4 files and a JSONL of summaries, start to published adapter."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from training.world.video import render_folder
from visum.cli import main

CONFIG = """
[temporal]
experts = 2
rank = 2
[spatial]
experts = 2
rank = 2
[schedule]
epochs = 2
batch_size = 2
[watch]
calibration_clips = 4
evaluate_every = 2
answer_tokens = 12
[machine]
threads = 1
device = "cpu"
tensorboard = false
"""


@pytest.fixture
def videos(tmp_path: Path, monkeypatch) -> Path:
    monkeypatch.setenv("VISUM_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "videos"
    clips = list(render_folder("traffic", 5, 0, folder))
    told = [json.loads(clip.with_suffix(".json").read_text())["summary"] for clip in clips]
    lines = [{"video": clip.name, "summary": text} for clip, text in zip(clips, told, strict=True)]
    lines.append({"video": "not-there.mp4", "summary": "Nothing."})
    (folder / "pairs.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (tmp_path / "train.toml").write_text(CONFIG)
    return folder


def test_own_videos_become_a_published_adapter(videos: Path, capsys) -> None:
    command = [
        "train",
        "--domain",
        "street",
        "--data",
        "videos/pairs.jsonl",
        "--config",
        "train.toml",
        "--json",
    ]
    assert main(command) == 0
    published = json.loads(capsys.readouterr().out)
    assert (published["domain"], published["version"]) == ("street", 1)
    manifest = json.loads((Path(published["path"]) / "manifest.json").read_text())
    assert manifest["training"]["data"] == "4 videos of jsonl annotations, 1 held out"
    assert manifest["training"]["steps"] >= 4
    assert published["quality"]["clips"] == 1


def test_annotations_of_which_no_video_is_there_are_refused(videos: Path, capsys) -> None:
    (videos / "none.jsonl").write_text(json.dumps({"video": "gone.mp4", "summary": "Nothing."}) + "\n")
    assert main(["train", "--domain", "street", "--data", "videos/none.jsonl"]) == 1
    assert "none of the 1 annotated videos can be used" in capsys.readouterr().err
