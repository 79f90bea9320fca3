"""The shipped experts are worth their place: a small sample of what docs/results.md measures on many clips."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from tests.acceptance.clips import DOMAINS, Video
from tests.acceptance.system import System
from training.evaluation import Answer, score
from training.metrics.names import Metric
from training.metrics.text import TextScorer
from training.world.splits import clip_from_seed, split_of

ROUGE_L, FACTS, LEAD = 0.92, 0.88, 0.30


def _scores(videos: Sequence[Video], results: Sequence[dict[str, Any]]) -> dict[str, float]:
    answers = [
        Answer.of_clip(
            clip_from_seed(video.domain, video.seed), result["summary"], result["domain"]["selected"]
        )
        for video, result in zip(videos, results, strict=True)
    ]
    with TextScorer([Metric.ROUGE]) as scorer:
        return {name: figure.value for name, figure in score(answers, scorer).figures.items()}


@pytest.fixture(scope="module")
def own(alone: dict[Video, dict[str, Any]]) -> dict[str, float]:
    """Every video by its own domain's experts."""
    assert {split_of(video.seed) for video in alone} == {"test"}
    return _scores(list(alone), list(alone.values()))


def test_a_domains_own_experts_say_what_happens(own: dict[str, float]) -> None:
    assert own["rouge_l"] >= ROUGE_L
    assert own["fact_recall"] >= FACTS


def _of_nobody(video: Video) -> dict[str, object]:
    return {"domain": "general"}


def _of_a_wrong_domain(video: Video) -> dict[str, object]:
    return {"domain": DOMAINS[(DOMAINS.index(video.domain) + 1) % len(DOMAINS)], "adapter_version": 1}


@pytest.mark.parametrize("experts", [_of_nobody, _of_a_wrong_domain])
def test_the_frozen_backbone_and_the_experts_of_a_wrong_domain_say_far_less(
    system: System, videos: list[Video], own: dict[str, float], experts: Callable[[Video], dict[str, object]]
) -> None:
    ids = [system.submit(video.path, **experts(video)) for video in videos]
    scores = _scores(videos, [system.result(summary_id) for summary_id in ids])
    assert own["rouge_l"] - scores["rouge_l"] >= LEAD
