"""VideoXum's JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.training.data.conftest import Videos
from tests.training.data.samples import videoxum_record, write_json
from training.data.errors import AnnotationsUnfit
from training.data.example import Dataset, Finding, Format
from training.data.reading import read_dataset


def read(path: Path, videos: Videos) -> Dataset:
    return read_dataset(Format.VIDEOXUM, [path], videos.folder)


@pytest.fixture
def records(rendered: Videos) -> list[dict[str, Any]]:
    return [videoxum_record(video_id, clip) for video_id, clip in rendered.clips.items()]


def test_every_video_has_its_sentences_as_one_reference_and_its_length(
    rendered: Videos, records: list[dict[str, Any]], tmp_path: Path
) -> None:
    dataset = read(write_json(tmp_path / "train_videoxum.json", records), rendered)
    assert [example.id for example in dataset.examples] == list(rendered.clips)
    for example, clip in zip(dataset.examples, rendered.clips.values(), strict=True):
        assert example.references == (clip.summary,)
        assert example.duration_s == round(clip.duration_s, 2)
        assert example.path == rendered.folder / f"{example.id}.mp4"


def test_frame_scores_are_the_share_of_annotators_that_kept_each_frame(
    rendered: Videos, records: list[dict[str, Any]], tmp_path: Path
) -> None:
    example, *_ = read(write_json(tmp_path / "a.json", records), rendered).examples
    assert example.key_frames.shape == (10, records[0]["sampled_frames"])
    assert np.array_equal(example.frame_scores, np.mean(records[0]["vsum_onehot"], axis=0))
    assert set(example.frame_scores) == {0.0, 0.5, 1.0}


def test_a_record_without_visual_summaries_still_gives_its_text(
    rendered: Videos, records: list[dict[str, Any]], tmp_path: Path
) -> None:
    del records[0]["vsum"], records[0]["vsum_onehot"]
    example, *_ = read(write_json(tmp_path / "a.json", records), rendered).examples
    assert example.references
    assert example.frame_scores is None


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"tsum": ["One sentence."]}, "1 sentences for"),
        ({"tsum": []}, "tsum holds no text"),
        ({"duration": -3.0}, "duration: Input should be greater than 0"),
        ({"duration": float("nan")}, "duration: Input should be a finite number"),
        ({"video_id": None}, "video_id: Input should be a valid string"),
        ({"vsum_onehot": [[0, 1]]}, "frames long, as sampled_frames says"),
        ({"vsum_onehot": [[0, 2]]}, "vsum_onehot.0.1: Input should be 0 or 1"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_record_that_does_not_fit_is_told_with_its_place_and_the_others_are_used(
    rendered: Videos, records: list[dict[str, Any]], tmp_path: Path, change: dict[str, Any], why: str
) -> None:
    records[1].update(change)
    dataset = read(write_json(tmp_path / "a.json", records), rendered)
    (finding,) = dataset.report.unusable
    assert finding.what.startswith("a.json: record 1")
    assert why in finding.why
    assert dataset.report.usable == 2


def test_a_video_annotated_twice_is_told_and_used_once(
    rendered: Videos, records: list[dict[str, Any]], tmp_path: Path
) -> None:
    report = read(write_json(tmp_path / "a.json", [*records, records[0]]), rendered).report
    assert report.duplicates == (
        Finding(records[0]["video_id"], "annotated again in a.json: record 3: not used"),
    )
    assert report.usable == 3


@pytest.mark.parametrize(
    ("text", "complaint"),
    [("{}", "not VideoXum's: a JSON list"), ("[{", "no JSON")],
    ids=["object", "cut off"],
)
def test_a_file_that_is_not_of_the_format_is_refused_by_name(
    rendered: Videos, tmp_path: Path, text: str, complaint: str
) -> None:
    path = tmp_path / "odd.json"
    path.write_text(text)
    with pytest.raises(AnnotationsUnfit, match=rf"odd\.json .*{complaint}"):
        read(path, rendered)


def test_annotations_that_are_not_there_are_named(rendered: Videos, tmp_path: Path) -> None:
    with pytest.raises(AnnotationsUnfit, match=r"none\.json cannot be read: No such file"):
        read(tmp_path / "none.json", rendered)
