"""`visum data check`: what it says of good and bad data, and its exit code."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from visum.cli import main


@pytest.fixture
def folder(clips: list[Path], tmp_path: Path) -> Path:
    """Two videos and a third that is none."""
    folder = tmp_path / "videos"
    folder.mkdir()
    for clip in clips[:2]:
        shutil.copy(clip, folder)
    (folder / "broken.mp4").write_text("no video")
    return folder


def pairs(tmp_path: Path, *names: str) -> Path:
    path = tmp_path / "pairs.jsonl"
    path.write_text(
        "".join(json.dumps({"video": name, "summary": f"About {name}."}) + "\n" for name in names)
    )
    return path


def check(pairs: Path, folder: Path, *more: str) -> int:
    return main(
        ["data", "check", "--format", "jsonl", "--annotations", str(pairs), "--videos", str(folder), *more]
    )


def test_all_that_is_wrong_is_counted_and_listed_and_what_is_left_can_be_used(
    tmp_path: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = pairs(tmp_path, "clip-0000", "broken", "nowhere")
    path.write_text(path.read_text() + '{"video": "clip-0001"}\n')
    assert check(path, folder) == 0
    said = capsys.readouterr().out
    for line in (
        "3 videos annotated, 1 can be used",
        "videos without a file: 1", "    nowhere",
        "files that give no frames: 1", "    broken: The file is not a video but a text file.",
        "unusable lines or records: 1", "    pairs.jsonl: line 4: no key 'summary'",
        "video files that no annotation names: 1", "    clip-0001.mp4",
    ):  # fmt: skip
        assert line in said


def test_pairs_beside_their_videos_need_no_more_than_their_name(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = pairs(folder, "clip-0000", "clip-0001")
    assert main(["data", "check", "--data", str(path)]) == 0
    assert "2 videos annotated, 2 can be used" in capsys.readouterr().out


def test_the_json_report_holds_everything(
    tmp_path: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert check(pairs(tmp_path, "clip-0000", "clip-0001", "nowhere"), folder, "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert report == {
        "format": "jsonl", "annotated": 3, "usable": 2, "references": 2, "missing": ["nowhere"], "unreadable": [],
        "duplicates": [], "unusable": [], "other_length": [], "unnamed": ["broken.mp4"],
    }  # fmt: skip


def test_a_long_list_is_cut_short_on_the_screen_and_says_so(
    tmp_path: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert check(pairs(tmp_path, "clip-0000", *(f"gone-{i}" for i in range(25))), folder) == 0
    said = capsys.readouterr().out
    assert "videos without a file: 25" in said
    assert "gone-9\n" in said
    assert "gone-10" not in said
    assert "and 15 more: --json lists all" in said


def test_a_data_set_with_no_usable_pair_ends_with_code_one(
    tmp_path: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert check(pairs(tmp_path, "broken", "nowhere"), folder) == 1
    assert "2 videos annotated, 0 can be used" in capsys.readouterr().out


def test_annotations_of_another_format_are_refused_in_one_line(
    tmp_path: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(pairs(tmp_path, "clip-0000", "clip-0001"))
    code = main(["data", "check", "--format", "videoxum", "--annotations", path, "--videos", str(folder)])
    printed = capsys.readouterr()
    assert code == 2
    assert printed.out == ""
    assert printed.err.startswith(f"visum: The annotations {path} are no JSON: ")
    assert printed.err.count("\n") == 1
