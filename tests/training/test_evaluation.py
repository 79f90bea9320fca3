"""Scores of answers: texts against references, facts against the demo world's truth."""

from __future__ import annotations

import pytest

from training.evaluation import LABELS, Answer, Scores, score
from training.metrics.figure import Figure
from training.metrics.names import Metric
from training.metrics.text import TextScorer
from training.world import make_clip
from training.world.scoring import score_facts

CLIPS = [make_clip("traffic", i, "test") for i in range(20)]
CHEAP = [Metric.ROUGE, Metric.BLEU, Metric.NIST]


def scored(answers: list[Answer]) -> Scores:
    with TextScorer(CHEAP) as scorer:
        return score(answers, scorer)


def test_references_score_one_in_everything_and_invent_nothing() -> None:
    scores = scored([Answer.of_clip(clip, clip.summary, "traffic") for clip in CLIPS])
    assert scores.figures.pop("bleu").value == pytest.approx(100.0)
    assert scores.figures.pop("nist").value > 1
    assert scores.figures.pop("invented") == Figure(0.0, 0.0, 0.0)
    assert set(scores.figures.values()) == {Figure(1.0, 1.0, 1.0)}


def test_answers_about_other_clips_score_low_and_are_not_exact() -> None:
    figures = scored(
        [Answer.of_clip(a, b.summary, "traffic") for a, b in zip(CLIPS, CLIPS[1:] + CLIPS[:1], strict=True)]
    ).figures
    assert figures["exact"].value == 0.0
    assert figures["rouge_l"].value < 0.7
    assert figures["fact_recall"].value < 0.6
    assert figures["fact_precision"].value < 0.6
    assert figures["invented"].value > 0.1


def test_every_figure_has_an_interval_that_holds_it() -> None:
    answers = [
        Answer.of_clip(c, c.summary if i % 2 else "One purple kettle explodes.", "traffic")
        for i, c in enumerate(CLIPS)
    ]
    figures = scored(answers).figures
    for name, figure in figures.items():
        assert figure.low <= figure.value <= figure.high, name
    for name in ("rouge_1", "rouge_2", "rouge_l", "bleu", "nist", "exact", "fact_f1", "invented"):
        assert figures[name].low < figures[name].value < figures[name].high, name


def test_facts_are_summed_over_answers_before_they_are_divided() -> None:
    answers = [Answer.of_clip(CLIPS[0], CLIPS[0].summary, "traffic"), Answer.of_clip(CLIPS[1], "", "traffic")]
    told, missed = (score_facts(a.summary, a.clip) for a in answers if a.clip is not None)
    figures = scored(answers).figures
    recall = told.total.total() / (told.total.total() + missed.total.total())
    assert figures["fact_recall"].value == pytest.approx(recall)
    assert figures["fact_precision"].value == 1.0
    assert figures["fact_f1"].value == pytest.approx(2 * recall / (1 + recall))


def test_videos_outside_the_demo_world_are_scored_by_their_texts_alone() -> None:
    answers = [Answer("A dog runs.", ("A dog runs after a ball.", "A dog runs."), "general")]
    figures = scored(answers).figures
    assert list(figures) == ["rouge_1", "rouge_2", "rouge_l", "bleu", "nist", "exact"]
    assert figures["exact"].value == figures["rouge_l"].value == 1.0


def test_every_figure_has_a_name_for_people() -> None:
    figures = scored([Answer.of_clip(clip, clip.summary, "traffic") for clip in CLIPS[:2]]).figures
    assert figures.keys() <= LABELS.keys()


def test_chosen_domains_are_counted() -> None:
    answers = [Answer.of_clip(c, c.summary, "cooking" if i == 0 else "traffic") for i, c in enumerate(CLIPS)]
    assert scored(answers).selected == {"cooking": 1, "traffic": 19}


def test_no_answers_is_an_error() -> None:
    with pytest.raises(ValueError, match="no answers"):
        scored([])
