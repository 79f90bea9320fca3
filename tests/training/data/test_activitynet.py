"""ActivityNet Captions' JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.training.data.conftest import Videos
from tests.training.data.samples import activitynet_record, write_json
from training.data.errors import AnnotationsUnfit
from training.data.example import Finding, Format
from training.data.reading import read_dataset

OTHER = ["Somebody else", " saw it otherwise."]


@pytest.fixture
def first(rendered: Videos) -> dict[str, Any]:
    return {video_id: activitynet_record(clip) for video_id, clip in rendered.clips.items()}


def test_both_validation_files_give_a_video_two_references(
    rendered: Videos, first: dict[str, Any], tmp_path: Path
) -> None:
    name, clip = next(iter(rendered.clips.items()))
    second = {name: {"duration": 9.0, "timestamps": [[0, 1], [1, 2]], "sentences": OTHER}}
    files = [write_json(tmp_path / "val_1.json", first), write_json(tmp_path / "val_2.json", second)]
    dataset = read_dataset(Format.ACTIVITYNET, files, rendered.folder)
    assert [len(example.references) for example in dataset.examples] == [2, 1, 1]
    assert dataset.examples[0].references == (clip.summary, "Somebody else saw it otherwise.")
    assert dataset.examples[0].duration_s == round(clip.duration_s, 2)


def test_two_equal_references_are_one(rendered: Videos, first: dict[str, Any], tmp_path: Path) -> None:
    files = [write_json(tmp_path / name, first) for name in ("val_1.json", "val_2.json")]
    dataset = read_dataset(Format.ACTIVITYNET, files, rendered.folder)
    assert {len(example.references) for example in dataset.examples} == {1}


def test_a_key_that_stands_twice_in_a_file_is_told(
    rendered: Videos, first: dict[str, Any], tmp_path: Path
) -> None:
    name, clip = next(iter(rendered.clips.items()))
    path = tmp_path / "train.json"
    again = json.dumps({name: activitynet_record(clip, told=OTHER[:1] * len(clip.events))})
    path.write_text(json.dumps(first)[:-1] + ", " + again[1:])
    dataset = read_dataset(Format.ACTIVITYNET, [path], rendered.folder)
    assert dataset.report.duplicates == (Finding(name, "annotated again in train.json: the first is used"),)
    assert dataset.examples[0].references == (clip.summary,)


def test_a_video_may_lie_there_without_the_v_of_its_id(
    videos: Videos, first: dict[str, Any], tmp_path: Path
) -> None:
    name = next(iter(first))
    file = videos.folder / f"{name}.mp4"
    file.rename(file.with_name(name.removeprefix("v_") + ".MP4"))
    dataset = read_dataset(Format.ACTIVITYNET, [write_json(tmp_path / "a.json", first)], videos.folder)
    assert dataset.report.missing == ()
    assert dataset.examples[0].id == name


def test_a_record_that_does_not_fit_is_told_by_its_video(
    rendered: Videos, first: dict[str, Any], tmp_path: Path
) -> None:
    names = list(first)
    first[names[0]]["sentences"] = ["  ", ""]
    del first[names[1]]["timestamps"]
    report = read_dataset(
        Format.ACTIVITYNET, [write_json(tmp_path / "a.json", first)], rendered.folder
    ).report
    assert report.unusable == (
        Finding(f"a.json: {names[0]}", "sentences hold no text"),
        Finding(f"a.json: {names[1]}", "no key 'timestamps'"),
    )
    assert (report.annotated, report.usable) == (1, 1)


def test_a_list_is_not_of_the_format(rendered: Videos, tmp_path: Path) -> None:
    with pytest.raises(AnnotationsUnfit, match=r"a\.json are not ActivityNet Captions'"):
        read_dataset(Format.ACTIVITYNET, [write_json(tmp_path / "a.json", [])], rendered.folder)
