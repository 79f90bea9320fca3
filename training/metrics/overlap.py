"""ROUGE, SacreBLEU and NIST: shared words, by rouge-score, sacrebleu and nltk."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np

from training.metrics.figure import Statistic, mean

NIST_ORDER = 5


def rouge(summaries: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, Statistic]:
    """rouge-score's F-measures without stemming; of several references the best."""
    from rouge_score.rouge_scorer import RougeScorer

    names = {"rouge_1": "rouge1", "rouge_2": "rouge2", "rouge_l": "rougeL"}
    scorer = RougeScorer([*names.values()])
    scores = [scorer.score_multi(texts, said) for said, texts in zip(summaries, references, strict=True)]
    return {name: mean([score[kind].fmeasure for score in scores]) for name, kind in names.items()}


def sacrebleu(summaries: Sequence[str], references: Sequence[Sequence[str]]) -> Statistic:
    """sacrebleu's corpus BLEU on its defaults, 0 to 100: 13a tokens, mixed case, exponential smoothing."""
    from sacrebleu.metrics import BLEU

    counter = BLEU(effective_order=True)  # of a sentence only the counts are taken; those know no smoothing
    scores = [counter.sentence_score(said, texts) for said, texts in zip(summaries, references, strict=True)]
    rows = [[*s.counts, *s.totals, s.sys_len, s.ref_len] for s in scores]

    def value(total: np.ndarray) -> float:
        counts = total.astype(int).tolist()
        return BLEU.compute_bleu(counts[:4], counts[4:8], *counts[8:], smooth_method="exp").score

    return Statistic(np.array(rows, np.float64), value)


def nist(summaries: Sequence[str], references: Sequence[Sequence[str]]) -> Statistic:
    """NIST (Doddington 2002) with n-grams up to five, as nltk's ``corpus_nist``, over lower-cased 13a tokens.

    The information that an n-gram carries is counted once over all references, also for the interval. Where no summary
    has n words, order n counts nothing (nltk divides by zero there).
    """
    from nltk.translate.nist_score import nist_length_penalty
    from nltk.util import ngrams
    from sacrebleu.tokenizers.tokenizer_13a import Tokenizer13a

    tokenize = Tokenizer13a()
    said = [tokenize(text.lower()).split() for text in summaries]
    told = [[tokenize(text.lower()).split() for text in texts] for texts in references]

    orders = range(1, NIST_ORDER + 1)
    frequency = Counter(
        gram for texts in told for text in texts for order in orders for gram in ngrams(text, order)
    )
    words = sum(len(text) for texts in told for text in texts)

    def information(gram: tuple[str, ...]) -> float:
        return math.log2((frequency[gram[:-1]] if len(gram) > 1 else words) / frequency[gram])

    def best(hypothesis: list[str], texts: list[list[str]], order: int) -> tuple[float, float, int]:
        """Information shared with the reference that shares most, n-grams said, and that reference's length."""
        grams = Counter(ngrams(hypothesis, order))
        shared = [
            sum(information(g) * count for g, count in (grams & Counter(ngrams(text, order))).items())
            for text in texts
        ]
        most, length = max(zip(shared, map(len, texts), strict=True))
        return most, float(grams.total()), length

    rows = []
    for hypothesis, texts in zip(said, told, strict=True):
        found = [best(hypothesis, texts, order) for order in orders]
        shared, grams, lengths = zip(*found, strict=True)
        rows.append([*shared, *grams, sum(lengths), NIST_ORDER * len(hypothesis)])

    def value(total: np.ndarray) -> float:
        shared, grams = total[:NIST_ORDER], total[NIST_ORDER : 2 * NIST_ORDER]
        precision = np.divide(shared, grams, out=np.zeros_like(shared), where=grams > 0).sum()
        return float(precision * nist_length_penalty(*total[-2:]))

    return Statistic(np.array(rows, np.float64), value)
