"""METEOR, CIDEr and VideoXum's V2T set equal pycocoevalcap's own."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from tests.training.metrics.examples import REFERENCES, SUMMARIES
from training.metrics import coco
from training.metrics.errors import MetricUnavailable
from training.metrics.figure import Statistic
from training.metrics.names import LABELS, Metric
from training.metrics.text import TextScorer

DRAWN = [0, 0, 2, 4, 4, 4]
java = pytest.mark.skipif(not coco.java_found(), reason="no Java runtime (Debian: default-jre-headless)")


def whole(statistic: Statistic) -> float:
    return statistic.value(statistic.rows.sum(axis=0))


def drawn(tokens: coco.Tokens) -> coco.Tokens:
    return {place: tokens[example] for place, example in enumerate(DRAWN)}


@pytest.fixture(scope="module")
def said() -> coco.Tokens:
    return coco.penn_tokens([[text] for text in SUMMARIES])


@pytest.fixture(scope="module")
def told() -> coco.Tokens:
    return coco.penn_tokens(REFERENCES)


@pytest.fixture(scope="module")
def meteor() -> Iterator[coco.Meteor]:
    with coco.Meteor() as process:
        yield process


@java
def test_tokens_are_ptbtokenizers(told: coco.Tokens) -> None:
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    captions = {i: [{"caption": text} for text in texts] for i, texts in enumerate(REFERENCES)}
    assert told == PTBTokenizer().tokenize(captions)


@java
def test_an_empty_text_and_line_ends_within_one_do_not_shift_the_others() -> None:
    tokens = coco.penn_tokens([["One\ncar.", ""], ["", "Café \u2028 two"]])
    assert tokens == {0: ["one car", ""], 1: ["", "café two"]}


@java
def test_meteor_is_pycocoevalcaps(meteor: coco.Meteor, said: coco.Tokens, told: coco.Tokens) -> None:
    theirs, segments = meteor._java.compute_score(told, said)
    statistic = meteor.score(said, told)
    assert whole(statistic) == pytest.approx(theirs, abs=1e-12)
    assert [statistic.value(row) for row in statistic.rows] == pytest.approx(segments, abs=1e-12)


@java
def test_drawn_examples_sum_up_to_meteors_score_of_them(
    meteor: coco.Meteor, said: coco.Tokens, told: coco.Tokens
) -> None:
    statistic = meteor.score(said, told)
    theirs, _ = meteor._java.compute_score(drawn(told), drawn(said))
    assert statistic.value(statistic.rows[DRAWN].sum(axis=0)) == pytest.approx(theirs, abs=1e-12)


@java
def test_a_summary_that_holds_meteors_separator_is_scored(meteor: coco.Meteor) -> None:
    statistic = meteor.score({0: ["a red ||| car"]}, {0: ["a red car"]})
    assert whole(statistic) == pytest.approx(1.0)


@java
def test_meteor_without_its_process_says_what_it_needs() -> None:
    dead = coco.Meteor()
    dead._java.meteor_p.kill()
    dead._java.meteor_p.wait()
    with dead, pytest.raises(MetricUnavailable, match="2 GiB of memory"):
        dead.score({0: ["a"]}, {0: ["a"]})


@java
def test_bleu_of_every_order_is_pycocoevalcaps(said: coco.Tokens, told: coco.Tokens) -> None:
    from pycocoevalcap.bleu.bleu import Bleu

    ours = coco.bleu(said, told)
    theirs, _ = Bleu(4).compute_score(told, said, verbose=0)
    assert [whole(ours[order]) for order in (1, 2, 3, 4)] == pytest.approx(theirs, abs=1e-12)
    theirs, _ = Bleu(4).compute_score(drawn(told), drawn(said), verbose=0)
    sums = [ours[order].value(ours[order].rows[DRAWN].sum(axis=0)) for order in (1, 2, 3, 4)]
    assert sums == pytest.approx(theirs, abs=1e-12)


@java
def test_cider_and_rouge_l_are_pycocoevalcaps(said: coco.Tokens, told: coco.Tokens) -> None:
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.rouge.rouge import Rouge

    assert whole(coco.cider(said, told)) == pytest.approx(Cider().compute_score(told, said)[0], abs=1e-12)
    assert whole(coco.rouge_l(said, told)) == pytest.approx(Rouge().compute_score(told, said)[0], abs=1e-12)


@java
def test_videoxums_set_is_that_of_its_evaluation_over_its_own_references(
    meteor: coco.Meteor, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.rouge.rouge import Rouge
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    def pre_caption(text: str) -> str:  # what it does to a reference, step by step
        return re.sub(r"\s{2,}", " ", re.sub(r"([.!\"()*#:;~])", " ", text.lower())).rstrip("\n").strip(" ")

    tokenizer = PTBTokenizer()
    said = tokenizer.tokenize({i: [{"caption": text}] for i, text in enumerate(SUMMARIES)})
    told = tokenizer.tokenize(
        {i: [{"caption": pre_caption(text)} for text in texts] for i, texts in enumerate(REFERENCES)}
    )
    expected = {
        **{f"v2t_bleu_{n + 1}": v for n, v in enumerate(Bleu(4).compute_score(told, said, verbose=0)[0])},
        "v2t_meteor": meteor._java.compute_score(told, said)[0],
        "v2t_rouge_l": Rouge().compute_score(told, said)[0],
        "v2t_cider": Cider().compute_score(told, said)[0],
    }
    scorer = TextScorer([Metric.V2T])
    monkeypatch.setattr(scorer, "_meteor", meteor)
    ours = scorer.statistics(SUMMARIES, REFERENCES)
    assert {name: whole(statistic) for name, statistic in ours.items()} == pytest.approx(expected, abs=1e-12)


@pytest.fixture
def no_java(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")


@pytest.mark.usefixtures("no_java")
def test_without_java_the_figures_say_that_they_are_not_the_official_ones() -> None:
    with TextScorer([Metric.METEOR, Metric.CIDER, Metric.V2T]) as scorer:
        found = scorer.statistics(SUMMARIES, REFERENCES)
        assert list(found) == ["meteor_nltk", "cider_nltk_tokens"]
        assert all(whole(statistic) > 0 for statistic in found.values())
        assert scorer.notes == (
            "No Java runtime: METEOR and CIDEr are not the official ones, and VideoXum's set is left out",
        )
    assert "nltk" in LABELS["meteor_nltk"]


@java
def test_a_rehearsal_runs_every_metric_and_keeps_no_java_process() -> None:
    with TextScorer(list(Metric)) as scorer:
        scorer.rehearse()
        assert scorer._meteor is None


@pytest.mark.usefixtures("no_java")
def test_tokens_that_need_java_say_so() -> None:
    with pytest.raises(MetricUnavailable, match="need a Java runtime"):
        coco.penn_tokens([["a car"]])


def test_nltks_meteor_is_its_formula_on_exact_words_and_stems() -> None:
    """Four words in one chunk: F 1, penalty 0.5 (1/4)^3; the second has no word in common."""
    statistic = coco.nltk_meteor(
        {0: ["the red cars race"], 1: ["blue"]}, {0: ["the red car race"], 1: ["green"]}
    )
    assert whole(statistic) == pytest.approx((1 - 0.5 / 64 + 0.0) / 2)
