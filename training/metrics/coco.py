"""METEOR, CIDEr and VideoXum's official V2T set, by pycocoevalcap over the Penn Treebank tokens of its Stanford jar.

Tokens and METEOR 1.5 need a Java runtime (METEOR's takes up to 2 GiB). Without one, CIDEr is computed over nltk's
Treebank tokens and METEOR is nltk's, and both say so by their names: their values are not the official ones'.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from training.metrics.errors import MetricUnavailable
from training.metrics.figure import Statistic, mean

Tokens = dict[int, list[str]]
"""Example -> its texts, tokens with a space between them: what pycocoevalcap's scorers take."""

_BLEU_ORDER = 4
_SMALL, _TINY = 1e-9, 1e-15  # BleuScorer's guards against division by zero


def java_found() -> bool:
    """Whether a Java runtime is on the path."""
    return shutil.which("java") is not None


def penn_tokens(texts: Sequence[Sequence[str]]) -> Tokens:
    """PTBTokenizer's: lower case, punctuation left out. Its jar is run as it does, but quietly and in UTF-8.

    Raises:
        MetricUnavailable: Java does not run.
    """
    from pycocoevalcap.tokenizer import ptbtokenizer

    lines = [" ".join(text.split()) for group in texts for text in group]
    jar = Path(ptbtokenizer.__file__).with_name(ptbtokenizer.STANFORD_CORENLP_3_4_1_JAR)
    program = ["-cp", str(jar), "edu.stanford.nlp.process.PTBTokenizer", "-preserveLines", "-lowerCase"]
    try:
        done = subprocess.run(
            ["java", "-Dfile.encoding=UTF-8", *program],
            input="".join(f"{line}\n" for line in lines),
            capture_output=True,
            check=True,
            encoding="utf-8",
        )
    except (OSError, subprocess.CalledProcessError) as error:
        raise MetricUnavailable(f"Penn Treebank tokens need a Java runtime: {error}") from error
    tokens = iter(done.stdout.split("\n"))
    dropped = frozenset(ptbtokenizer.PUNCTUATIONS)
    return {
        i: [" ".join(w for w in next(tokens).split() if w not in dropped) for _ in group]
        for i, group in enumerate(texts)
    }


def nltk_tokens(texts: Sequence[Sequence[str]]) -> Tokens:
    """nltk's Treebank tokens, lower-cased, less the punctuation that PTBTokenizer leaves out."""
    from nltk.tokenize import TreebankWordTokenizer
    from pycocoevalcap.tokenizer.ptbtokenizer import PUNCTUATIONS

    words = TreebankWordTokenizer()
    return {
        i: [" ".join(w for w in words.tokenize(text.lower()) if w not in PUNCTUATIONS) for text in group]
        for i, group in enumerate(texts)
    }


def cider(summaries: Tokens, references: Tokens) -> Statistic:
    """CIDEr-D as pycocoevalcap's ``Cider``, 0 to 10. Its idf is the references' own: of one video it is always 0."""
    from pycocoevalcap.cider.cider import Cider

    return mean(Cider().compute_score(references, summaries)[1])


def rouge_l(summaries: Tokens, references: Tokens) -> Statistic:
    """ROUGE-L with beta 1.2, as pycocoevalcap's ``Rouge``."""
    from pycocoevalcap.rouge.rouge import Rouge

    return mean(Rouge().compute_score(references, summaries)[1])


def bleu(summaries: Tokens, references: Tokens) -> dict[int, Statistic]:
    """Corpus BLEU-1 to 4 with the closest reference's length and no smoothing, as pycocoevalcap's ``Bleu``, 0 to 1."""
    from pycocoevalcap.bleu.bleu_scorer import BleuScorer

    scorer = BleuScorer(n=_BLEU_ORDER)
    for example, (said,) in summaries.items():
        scorer += (said, references[example])
    rows = []
    for counts in scorer.ctest:
        said = counts["testlen"]
        closest = min((abs(length - said), length) for length in counts["reflen"])[1]
        rows.append([*counts["correct"], *counts["guess"], said, closest])

    def value(order: int, total: np.ndarray) -> float:
        correct, guessed = total[:order], total[_BLEU_ORDER : _BLEU_ORDER + order]
        score = np.prod((correct + _TINY) / (guessed + _SMALL)) ** (1 / order)
        lengths = (total[-2] + _TINY) / (total[-1] + _SMALL)
        return float(score * np.exp(1 - 1 / lengths) if lengths < 1 else score)

    array = np.array(rows, np.float64)
    orders = range(1, _BLEU_ORDER + 1)
    return {order: Statistic(array, lambda total, order=order: value(order, total)) for order in orders}


class Meteor:
    """METEOR 1.5 (Denkowski and Lavie 2014) in pycocoevalcap's Java process. Starting takes seconds: keep it.

    Its statistics of segments add up, so that a corpus is scored from their sum.
    """

    def __init__(self) -> None:
        from pycocoevalcap.meteor.meteor import Meteor as JavaMeteor

        self._java = JavaMeteor()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        process = self._java.meteor_p
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout, process.stderr):
            with suppress(BrokenPipeError):  # what it did not read any more
                stream.close()

    def score(self, summaries: Tokens, references: Tokens) -> Statistic:
        """METEOR as pycocoevalcap's, 0 to 1. The statistic needs the process to be there.

        Raises:
            MetricUnavailable: the process died, most likely for want of memory.
        """
        lines = []
        for example, (said,) in summaries.items():
            texts = [text.replace("|||", "") for text in (*references[example], said)]
            lines.append(self._ask(" ||| ".join(["SCORE", *texts])))
        return Statistic(np.array([line.split() for line in lines], np.float64), self._value)

    def _value(self, total: np.ndarray) -> float:
        segment = self._ask(
            "EVAL ||| " + " ".join(map(str, total.tolist()))
        )  # the score of each segment, so of one
        corpus = self._java.meteor_p.stdout.readline()  # and of all together: the same
        return float(corpus or segment)

    def _ask(self, line: str) -> str:
        process = self._java.meteor_p
        try:
            process.stdin.write(f"{line}\n".encode())
            process.stdin.flush()
        except BrokenPipeError:
            answer = ""
        else:
            answer = process.stdout.readline().decode().strip()
        if not answer:
            raise MetricUnavailable(
                "METEOR's Java process ended; it needs a Java runtime and 2 GiB of memory"
            )
        return answer


def nltk_meteor(summaries: Tokens, references: Tokens) -> Statistic:
    """nltk's METEOR (Lavie and Agarwal 2007) by exact words and stems. Its synonyms would need WordNet's data."""
    from nltk.translate.meteor_score import meteor_score

    class NoSynonyms:
        def synsets(self, word: str) -> list[object]:
            return []

    return mean(
        [
            meteor_score([text.split() for text in references[i]], said.split(), wordnet=NoSynonyms())
            for i, (said,) in summaries.items()
        ]
    )


def videoxum_reference(text: str) -> str:
    """A reference as VideoXum's own evaluation has it before it is tokenized (``pre_caption`` of its data/utils.py)."""
    return " ".join(re.sub(r'[.!"()*#:;~]', " ", text.lower()).split())
