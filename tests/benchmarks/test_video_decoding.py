"""The comparison of video decoders runs to its end, with torchcodec and without."""

from __future__ import annotations

import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import av
import pytest

from benchmarks.goals import VIDEO
from benchmarks.long_video import Film
from benchmarks.plan import QUICK
from benchmarks.subject import Subject
from benchmarks.video_decoding import OURS, STOCK, video_decoding


@pytest.fixture
def fresh(subject: Subject, tmp_path: Path) -> Subject:
    """The subject with an empty folder to write in."""
    return replace(subject, scratch=tmp_path)


def test_a_long_film_is_its_first_part_over_and_over(tmp_path: Path) -> None:
    film = Film(seconds=4, width=64, height=48, gop=10, part_frames=20)
    with av.open(str(film.write(tmp_path / "film.mp4"))) as container:
        frames = [(frame.pts, frame.to_ndarray()) for frame in container.decode(video=0)]
    assert len(frames) == 100
    assert all((frame == frames[i % 20][1]).all() for i, (_, frame) in enumerate(frames))
    assert len({later[0] - earlier[0] for earlier, later in pairwise(frames)}) == 1


def test_ours_is_compared_with_transformers_on_the_same_frames(fresh: Subject) -> None:
    found = video_decoding(fresh, QUICK)
    rows = [row for row in found.rows if row.against == STOCK]
    assert [(row.name, row.goal) for row in rows] == [(OURS, VIDEO)]
    assert all(row.value.low > 0 for row in found.rows)


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_the_memory_of_the_decoding_process_is_measured_over_two_lengths(fresh: Subject) -> None:
    (memory,) = video_decoding(fresh, QUICK).breakdowns
    assert [share.name for share in memory.shares] == ["2 s of video", "8 s of video"]
    assert all(share.value.low > 0 for share in memory.shares)


def test_without_torchcodec_the_comparison_says_so(fresh: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    hidden = fresh.scratch / "hidden"
    hidden.mkdir()
    (hidden / "torchcodec.py").write_text("raise ImportError('it is hidden')\n")
    monkeypatch.setenv("PYTHONPATH", str(hidden))
    found = video_decoding(fresh, QUICK)
    assert found.notes[-1] == "torchcodec was not measured: it is hidden"
    assert {row.against for row in found.rows} == {STOCK}
