"""docs/train-a-domain.md, followed from its first command to its last on ten rendered videos."""

from __future__ import annotations

import json
import re
import tempfile
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.visum.tutorial import PAGE, ROOT, Reading, blocks, follow, pattern


@pytest.fixture(scope="module")
def reading() -> Iterator[Reading]:
    with tempfile.TemporaryDirectory(prefix="visum-", dir="/tmp") as home:
        yield follow(Path(home).resolve())


@pytest.fixture(scope="module")
def street(reading: Reading) -> Path:
    """The folder of the domain's versions."""
    return reading.home / ".local/share/visum/models/adapters/street"


def manifest(street: Path, version: int) -> dict:
    return json.loads((street / str(version) / "manifest.json").read_text())


def printed(reading: Reading, command: str) -> str:
    """What the steps with a command printed."""
    return "".join(step.printed for step in reading.steps if command in step.commands)


def test_every_output_that_is_shown_is_what_its_commands_print(reading: Reading) -> None:
    shown = [step for step in reading.steps if step.shown is not None]
    assert len(shown) == len(blocks("text"))
    for step in shown:
        assert pattern(step.shown).fullmatch(step.printed), f"{step.commands}\n{step.printed}"


def test_the_pair_that_is_shown_is_one_of_the_readers(reading: Reading) -> None:
    (shown,) = blocks("jsonl")
    assert shown in (reading.home / "videos/pairs.jsonl").read_text()


def test_two_of_the_ten_videos_are_held_out_with_their_summaries(reading: Reading) -> None:
    held_out = (reading.home / "runs/train/street/held-out.jsonl").read_text().splitlines()
    assert len(held_out) == 2
    assert {*held_out} <= {*(reading.home / "videos/pairs.jsonl").read_text().splitlines()}


def test_the_first_version_is_better_than_the_frozen_backbone_and_the_second_is_not(street: Path) -> None:
    first, second = manifest(street, 1)["quality"], manifest(street, 2)["quality"]
    assert first["rouge_l"] > first["frozen_rouge_l"] > second["rouge_l"]


def test_the_killed_training_goes_on_where_its_checkpoint_was(reading: Reading) -> None:
    (kept,) = re.findall(r"step-0*(\d+)", printed(reading, "kill -9"))
    assert f"going on after step {kept} of" in printed(reading, "--resume")


def test_what_is_rolled_back_to_is_the_first_version_and_answers(reading: Reading, street: Path) -> None:
    assert sorted(path.name for path in street.iterdir()) == ["1", "2", "3"]
    assert manifest(street, 3)["files"] == manifest(street, 1)["files"]
    assert re.findall(r"experts street v(\d)", printed(reading, "visum summarize")) == ["1", "3"]


def test_what_is_installed_is_an_extra_of_the_project() -> None:
    (installation,) = blocks("sh")
    (extra,) = re.findall(r"pip install '\.\[(\w+)\]'", installation)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert extra in project["optional-dependencies"]


@pytest.mark.parametrize("page", ["README.md", "docs/training.md"])
def test_the_tutorial_is_linked(page: str) -> None:
    assert "train-a-domain.md)" in (ROOT / page).read_text()


def test_an_output_is_as_shown_up_to_numbers_and_the_models_words() -> None:
    shown = "v1  0.50 ██▏\n  Once a car.\n…\nend of …\n"
    assert pattern(shown).fullmatch("v12  0.9 █\n  A bus drives.\nnoise\nmore\nend of it\n")
    assert not pattern(shown).fullmatch("w1  0.50 ██▏\n  Once a car.\nend of it\n")
    assert not pattern(shown).fullmatch("v1  0.50 ██▏\nend of it\n")


def test_every_block_of_the_page_is_of_a_known_kind() -> None:
    kinds = re.findall(r"^```(\w*)$", PAGE, re.MULTILINE)
    assert {*kinds} == {"sh", "bash", "text", "jsonl", "toml", ""}
    assert kinds[1::2] == [""] * (len(kinds) // 2)
