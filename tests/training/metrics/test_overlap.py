"""ROUGE, SacreBLEU and NIST equal their libraries' own functions."""

from __future__ import annotations

import numpy as np
import pytest
from nltk.translate.nist_score import corpus_nist
from rouge_score.rouge_scorer import RougeScorer
from sacrebleu.metrics import BLEU
from sacrebleu.tokenizers.tokenizer_13a import Tokenizer13a

from tests.training.metrics.examples import REFERENCES, SUMMARIES
from training.metrics.figure import Statistic
from training.metrics.names import Metric
from training.metrics.overlap import nist, rouge, sacrebleu
from training.metrics.text import TextScorer

DRAWN = [0, 0, 2, 4, 4, 4]  # examples as a resample might draw them


def whole(statistic: Statistic) -> float:
    return statistic.value(statistic.rows.sum(axis=0))


def streams(references: list[list[str]]) -> list[list[str | None]]:
    """Stream k holds reference k of every summary, None where it has fewer."""
    most = max(map(len, references))
    return [[texts[k] if k < len(texts) else None for texts in references] for k in range(most)]


@pytest.mark.parametrize(
    ("name", "kind"), [("rouge_1", "rouge1"), ("rouge_2", "rouge2"), ("rouge_l", "rougeL")]
)
def test_rouge_is_rouge_scores_best_over_the_references(name: str, kind: str) -> None:
    scorer = RougeScorer([kind])
    best = [
        max(scorer.score(text, said)[kind].fmeasure for text in texts)
        for said, texts in zip(SUMMARIES, REFERENCES, strict=True)
    ]
    statistic = rouge(SUMMARIES, REFERENCES)[name]
    assert statistic.rows[:, 0].tolist() == best
    assert whole(statistic) == pytest.approx(np.mean(best), abs=1e-12)


def test_sacrebleu_is_the_librarys_corpus_score_with_several_references() -> None:
    ours = whole(sacrebleu(SUMMARIES, REFERENCES))
    assert ours == pytest.approx(BLEU().corpus_score(SUMMARIES, streams(REFERENCES)).score, abs=1e-9)
    assert ours > 5


def test_sacrebleus_signature_is_told_with_the_figure() -> None:
    theirs = BLEU()
    theirs.corpus_score(SUMMARIES, streams(REFERENCES))
    with TextScorer([Metric.BLEU]) as scorer:
        (note,) = scorer.notes
    assert note == f"SacreBLEU: {str(theirs.get_signature()).removeprefix('nrefs:var|')}"


def test_drawn_examples_sum_up_to_sacrebleus_score_of_them() -> None:
    statistic = sacrebleu(SUMMARIES, REFERENCES)
    said, told = [SUMMARIES[i] for i in DRAWN], [REFERENCES[i] for i in DRAWN]
    theirs = BLEU().corpus_score(said, streams(told)).score
    assert statistic.value(statistic.rows[DRAWN].sum(axis=0)) == pytest.approx(theirs, abs=1e-9)


def test_nist_is_nltks_over_13a_tokens() -> None:
    tokenize = Tokenizer13a()
    said = [tokenize(text.lower()).split() for text in SUMMARIES]
    told = [[tokenize(text.lower()).split() for text in texts] for texts in REFERENCES]
    ours = whole(nist(SUMMARIES, REFERENCES))
    assert ours == pytest.approx(corpus_nist(told, said), abs=1e-9)
    assert ours > 1


def test_summaries_too_short_for_an_order_count_nothing_there() -> None:
    statistic = nist(["red", ""], [["a red car"], ["a blue bus"]])
    assert 0 < whole(statistic) < 5
    assert whole(nist([""], [["a red car"]])) == 0.0


def test_an_empty_summary_scores_nothing() -> None:
    assert whole(sacrebleu([""], [["a red car heads east"]])) == 0.0
    assert whole(rouge([""], [["a red car heads east"]])["rouge_l"]) == 0.0
