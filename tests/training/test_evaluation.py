"""Scores of answers against the demo world's truth."""

from __future__ import annotations

import pytest

from training.evaluation import Answer, score
from training.world import make_clip

CLIPS = [make_clip("traffic", i, "test") for i in range(20)]


def test_references_score_one_in_everything() -> None:
    scores = score([Answer(clip, clip.summary, "traffic") for clip in CLIPS])
    assert (scores.rouge_l, scores.exact, scores.facts) == (1.0, 1.0, 1.0)
    assert set(scores.facts_by_attribute.values()) == {1.0}
    assert scores.rouge_l_interval == (1.0, 1.0)


def test_answers_about_other_clips_score_low_and_are_not_exact() -> None:
    scores = score(
        [Answer(a, b.summary, "traffic") for a, b in zip(CLIPS, CLIPS[1:] + CLIPS[:1], strict=True)]
    )
    assert scores.exact == 0.0
    assert scores.rouge_l < 0.7
    assert scores.facts < 0.6


def test_the_interval_holds_the_mean() -> None:
    answers = [Answer(c, c.summary if i % 2 else "Nothing happens.", "traffic") for i, c in enumerate(CLIPS)]
    scores = score(answers)
    low, high = scores.rouge_l_interval
    assert low < scores.rouge_l < high


def test_chosen_domains_are_counted() -> None:
    answers = [Answer(c, c.summary, "cooking" if i == 0 else "traffic") for i, c in enumerate(CLIPS)]
    assert score(answers).selected == {"cooking": 1, "traffic": 19}


def test_no_answers_is_an_error() -> None:
    with pytest.raises(ValueError, match="no answers"):
        score([])
