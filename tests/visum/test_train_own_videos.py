"""`visum train` on a user's own mp4 files and a JSONL of summaries, start to published adapter."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from training.data.example import Format
from training.trainer.config import load_config
from training.world.video import render_folder
from visum.cli import main
from visum.data import read
from visum.train import for_own_videos, own_plan

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


def test_loaders_read_own_videos_ahead(videos: Path) -> None:
    config = videos.parent / "train.toml"
    config.write_text(
        CONFIG.replace("[machine]", "[machine]\nloaders = 1").replace("epochs = 2", "epochs = 1")
    )
    assert main(["train", "--domain", "street", "--data", "videos/pairs.jsonl", "--config", str(config)]) == 0


@pytest.mark.parametrize("domain", ["My Street", "../escape", ""])
def test_what_is_no_domain_is_refused_before_anything_is_read(videos: Path, capsys, domain: str) -> None:
    assert main(["train", "--domain", domain, "--data", "videos/pairs.jsonl"]) == 2
    assert "no domain" in capsys.readouterr().err
    assert not (videos.parent / "runs").exists()


def test_two_videos_leave_too_few_to_learn_from(videos: Path, capsys) -> None:
    lines = (videos / "pairs.jsonl").read_text().splitlines()[:2]
    (videos / "two.jsonl").write_text("\n".join(lines) + "\n")
    command = ["train", "--domain", "street", "--data", "videos/two.jsonl", "--config", "train.toml"]
    assert main(command) == 1
    assert "1 usable pairs of a video and a summary: it takes 2 at least" in capsys.readouterr().err


def test_annotations_of_which_no_video_is_there_are_refused(videos: Path, capsys) -> None:
    (videos / "none.jsonl").write_text(json.dumps({"video": "gone.mp4", "summary": "Nothing."}) + "\n")
    assert main(["train", "--domain", "street", "--data", "videos/none.jsonl"]) == 1
    assert "none of the 1 annotated videos can be used" in capsys.readouterr().err


def test_what_is_left_out_is_told(videos: Path, capsys) -> None:
    (videos / "none.jsonl").write_text(json.dumps({"video": "gone.mp4", "summary": "Nothing."}) + "\n")
    main(["train", "--domain", "street", "--data", "videos/none.jsonl"])
    assert "of the data: 1 without a file" in capsys.readouterr().err


def test_the_held_out_videos_are_the_same_for_every_seed_and_are_listed(videos: Path) -> None:
    listed = []
    for seed in (1, 2):
        run = videos.parent / f"run-{seed}"
        common = {"backbone": "visum-demo", "folder": run, "roots": ()}
        dataset = read(Format.JSONL, [videos / "pairs.jsonl"], None)
        plan = own_plan("street", dataset, None, load_config(None, seed=seed), "", common, videos)
        listed.append((run / "held-out.jsonl").read_text())
        assert [json.loads(line)["video"] for line in listed[-1].splitlines()] == [*plan.validation.names]
    assert listed[0] == listed[1]


def test_what_a_config_leaves_open_is_set_for_few_videos_and_measured_once_an_epoch() -> None:
    config = for_own_videos(load_config(None))
    assert (config.schedule.epochs, config.watch.patience) == (20, 3)
    assert (config.watch.evaluate_every, config.watch.checkpoint_every) == ("epoch", "epoch")


def test_what_a_config_says_stays_for_few_videos() -> None:
    said = {"schedule.epochs": 6, "watch.evaluate_every": 0, "watch.checkpoint_every": 5, "watch.patience": 0}
    config = for_own_videos(load_config(None, **said))
    assert (config.schedule.epochs, config.watch.patience) == (6, 0)
    assert (config.watch.evaluate_every, config.watch.checkpoint_every) == (0, 5)
