"""`visum evaluate` against a real service over a tiny backbone: what it says is gibberish, how it is scored is not."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from rouge_score.rouge_scorer import RougeScorer

from tests.visum.running import Service, serving
from training.metrics.errors import MetricUnavailable
from visum.cli import main

CHEAP = ["--metric", "rouge", "--metric", "bleu", "--metric", "nist"]


@pytest.fixture(scope="module")
def service(tiny_backbone: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with serving(tmp_path_factory.mktemp("evaluated"), tiny_backbone) as service:
        yield service


@pytest.fixture
def videos(clips: list[Path], tmp_path: Path) -> Path:
    """Two sound videos and one that is none."""
    folder = tmp_path / "videos"
    folder.mkdir()
    for clip in clips[:2]:
        shutil.copy(clip, folder)
    (folder / "broken.mp4").write_text("no video")
    return folder


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    """Four videos, one of them without a file; the first with two references."""
    told = [("clip-0000", "A car heads east."), ("clip-0000", "One red car drives."), ("clip-0001", "A bus waits."),
            ("broken", "Nothing."), ("nowhere", "A tram leaves.")]  # fmt: skip
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps({"video": video, "summary": text}) + "\n" for video, text in told))
    return path


def data(pairs: Path, videos: Path) -> list[str]:
    return ["evaluate", "--data", str(pairs), "--format", "jsonl", "--videos", str(videos)]


def test_a_data_set_is_scored_and_what_was_not_answered_is_told(
    service: Service, pairs: Path, videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "results" / "scores.json"
    assert (
        main([*data(pairs, videos), *CHEAP, "--domain", "general", "--url", service.url, "--out", str(out)])
        == 0
    )
    report = json.loads(out.read_text())
    assert report["complete"] is True
    scores = report["scores"]["jsonl"]["general"]
    assert scores["answers"] == 2
    assert scores["selected"] == {"general": 2}
    assert list(scores["figures"]) == ["rouge_1", "rouge_2", "rouge_l", "bleu", "nist", "exact"]
    for figure in scores["figures"].values():
        assert figure["low"] <= figure["value"] <= figure["high"]
    scorer = RougeScorer(["rouge1"])
    best = [scorer.score_multi(a["references"], a["summary"])["rouge1"].fmeasure for a in report["answers"]]
    assert scores["figures"]["rouge_1"]["value"] == pytest.approx(sum(best) / 2)
    assert [answer["video"] for answer in report["answers"]] == ["clip-0000", "clip-0001"]
    assert report["answers"][0]["references"] == ["A car heads east.", "One red car drives."]
    assert report["data"]["missing"] == ["nowhere"]
    (failure,) = report["failed"]
    assert (failure["video"], failure["code"]) == ("broken", "video.unsupported_container")
    printed = capsys.readouterr()
    assert "ROUGE-L" in printed.out
    assert "1 without a file" in printed.err
    assert "1 without an answer, left out of the figures" in printed.err


def test_answers_that_cannot_be_scored_are_kept(
    service: Service, pairs: Path, videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(answers: object, scorer: object) -> None:
        raise MetricUnavailable("METEOR's Java process ended")

    monkeypatch.setattr("training.evaluation.score", fail)
    out = tmp_path / "scores.json"
    assert (
        main([*data(pairs, videos), *CHEAP, "--domain", "general", "--url", service.url, "--out", str(out)])
        == 1
    )
    report = json.loads(out.read_text())
    assert report["complete"] is False
    assert report["scores"] == {}
    assert len(report["answers"]) == 2


def test_a_report_that_cannot_be_written_is_said_before_anything_is_sent(
    pairs: Path, videos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = pairs / "scores.json"
    assert main([*data(pairs, videos), *CHEAP, "--url", "http://127.0.0.1:9", "--out", str(out)]) == 2
    assert "scores.json cannot be written: " in capsys.readouterr().err


def test_clips_of_the_demo_world_are_scored_by_their_facts_as_well(
    service: Service, capsys: pytest.CaptureFixture[str]
) -> None:
    arms = ["--arm", "frozen", "--arm", "own"]
    options = ["--clips", "2", "--domain", "general", *arms, "--metric", "rouge", "--url", service.url]
    assert main(["evaluate", *options, "--json"]) == 0
    scores = json.loads(capsys.readouterr().out)["scores"]["general"]
    assert list(scores) == ["frozen", "own"]
    figures = scores["frozen"]["figures"]
    assert {"rouge_l", "exact", "fact_precision", "fact_recall", "fact_f1", "invented"} <= figures.keys()
    assert {
        f"recall_{name}" for name in ("object", "colour", "count", "direction", "order")
    } <= figures.keys()
    assert all(figure.keys() == {"value", "low", "high"} for figure in figures.values())


def test_the_table_stays_within_a_terminals_width(
    service: Service, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--clips", "1", "--domain", "general", "--arm", "frozen", "--arm", "auto", "--metric", "rouge"]
    assert main(["evaluate", *options, "--url", service.url]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    assert any(line.strip().startswith("fact precision") for line in lines)


def test_a_data_set_of_which_nothing_is_answered_has_no_figures(
    service: Service, pairs: Path, videos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("clip-0000", "clip-0001"):
        (videos / f"{name}.mp4").unlink()
    assert main([*data(pairs, videos), *CHEAP, "--url", service.url]) == 1
    assert "No video was answered; the first, broken.mp4:" in capsys.readouterr().err


def test_a_data_set_without_a_usable_pair_ends_before_anything_is_sent(
    pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    assert main([*data(pairs, tmp_path / "empty"), *CHEAP, "--url", "http://127.0.0.1:9"]) == 1
    assert "no usable pair of video and summary. `visum data check` says why." in capsys.readouterr().err


def test_an_encoder_that_cannot_be_loaded_ends_it_before_anything_is_sent(
    pairs: Path, videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    encoder = tmp_path / "no-encoder"
    assert main([*data(pairs, videos), "--bertscore", str(encoder), "--url", "http://127.0.0.1:9"]) == 1
    assert f"BERTScore's encoder {encoder} cannot be loaded" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    ("metric", "module"),
    [
        ("rouge", "rouge_score.rouge_scorer"),
        ("bleu", "sacrebleu.metrics"),
        ("nist", "nltk.translate.nist_score"),
        ("cider", "pycocoevalcap.cider.cider"),
    ],
)
def test_a_library_that_is_not_installed_is_named_with_its_extra_before_anything_is_sent(
    pairs: Path,
    videos: Path,
    metric: str,
    module: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    assert main([*data(pairs, videos), "--metric", metric, "--url", "http://127.0.0.1:9"]) == 1
    name = module.partition(".")[0]
    expected = f"visum: This needs {name}, which is not installed. Run: pip install 'milora-visum[train]'\n"
    assert capsys.readouterr().err == expected


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--data", "a.json"], "annotations a.json cannot be read"),
        (["--format", "jsonl"], "--format says how to read --data, which is not given"),
        (
            ["--data", "a.json", "--format", "jsonl", "--videos", ".", "--arm", "own"],
            "--arm is for the demo world's",
        ),
        (["--domain", "opera"], "no domain 'opera' to score"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_options_that_do_not_go_together_are_refused(
    options: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", *options, "--metric", "rouge"]) == 2
    assert complaint in capsys.readouterr().err
