"""Plain pairs, one a line."""

from __future__ import annotations

from pathlib import Path

from tests.training.data.conftest import Videos
from tests.training.data.samples import write_lines
from training.data.example import Finding, Format
from training.data.reading import read_dataset


def test_a_video_is_named_with_or_without_its_ending_or_by_its_path(videos: Videos, tmp_path: Path) -> None:
    one, two, three = videos.clips
    (videos.folder / "more").mkdir()
    (videos.folder / f"{three}.mp4").rename(videos.folder / "more" / "third.mp4")
    names = [one, f"{two}.mp4", "more/third.mp4"]
    path = write_lines(tmp_path / "pairs.jsonl", [{"video": name, "summary": "Told."} for name in names])
    dataset = read_dataset(Format.JSONL, [path], videos.folder)
    assert [example.path.name for example in dataset.examples] == [f"{one}.mp4", f"{two}.mp4", "third.mp4"]


def test_every_bad_line_is_told_with_its_number_and_the_good_ones_are_used(
    rendered: Videos, tmp_path: Path
) -> None:
    one, two, _ = rendered.clips
    path = write_lines(
        tmp_path / "pairs.jsonl",
        [
            {"video": one, "summary": "A runner leaps."},
            {"video": two, "summary": "A skier.", "titel": "x"},
            "",
            {"video": two},
            {"video": two, "summary": "   "},
            {"video": 7, "summary": "A skier."},
            '{"video": "cut off',
            "[]",
            {"video": two, "summary": "A skier dives."},
        ],
    )
    dataset = read_dataset(Format.JSONL, [path], rendered.folder)
    found = {finding.what: finding.why for finding in dataset.report.unusable}
    assert list(found) == [f"pairs.jsonl: line {number}" for number in (2, 4, 5, 6, 7, 8)]
    assert found["pairs.jsonl: line 2"] == "unknown key 'titel'"
    assert found["pairs.jsonl: line 4"] == "no key 'summary'"
    assert found["pairs.jsonl: line 5"] == "summary: String should have at least 1 character"
    assert found["pairs.jsonl: line 6"] == "video: Input should be a valid string"
    assert found["pairs.jsonl: line 7"].startswith("Invalid JSON: EOF while parsing a string")
    assert [example.references for example in dataset.examples] == [("A runner leaps.",), ("A skier dives.",)]


def test_lines_of_one_video_are_its_references_and_an_equal_one_is_a_duplicate(
    rendered: Videos, tmp_path: Path
) -> None:
    one, *_ = rendered.clips
    texts = ["A runner leaps.", "Somebody jumps.", "A runner  leaps."]
    path = write_lines(tmp_path / "pairs.jsonl", [{"video": one, "summary": text} for text in texts])
    dataset = read_dataset(Format.JSONL, [path], rendered.folder)
    assert [example.references for example in dataset.examples] == [("A runner leaps.", "Somebody jumps.")]
    assert dataset.report.duplicates == (
        Finding(one, "the same summary again in pairs.jsonl: line 3: used once"),
    )


def test_a_file_that_was_saved_with_a_byte_order_mark_and_cr_lf_is_read(
    rendered: Videos, tmp_path: Path
) -> None:
    one, *_ = rendered.clips
    path = tmp_path / "pairs.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"video": "%s", "summary": "A runner leaps."}\r\n' % one.encode())
    assert read_dataset(Format.JSONL, [path], rendered.folder).report.usable == 1


def test_bytes_that_are_no_utf8_are_a_bad_line(rendered: Videos, tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_bytes(b'{"video": "a", "summary": "caf\xe9"}\n')
    (finding,) = read_dataset(Format.JSONL, [path], rendered.folder).report.unusable
    assert finding.what == "pairs.jsonl: line 1"
