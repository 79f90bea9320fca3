"""All figures of a set of summaries against their references, in one place and one order."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import ExitStack
from importlib.metadata import version
from types import TracebackType
from typing import Self

from training.metrics import coco
from training.metrics.bertscore import BertScore, Encoder
from training.metrics.figure import Statistic
from training.metrics.names import LABELS, Metric
from training.metrics.overlap import nist, rouge, sacrebleu


class TextScorer:
    """Scores summaries by the metrics asked for. A context: METEOR's Java process lives as long as it."""

    def __init__(self, metrics: Collection[Metric], encoder: Encoder | None = None) -> None:
        """``encoder`` adds BERTScore.

        Raises:
            MetricUnavailable: the encoder cannot be loaded.
        """
        self._metrics = frozenset(metrics)
        self._java = coco.java_found()
        self._resources = ExitStack()
        self._meteor: coco.Meteor | None = None
        self._bert = BertScore(encoder) if encoder is not None else None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._resources.close()

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader of the figures must know of them."""
        notes = []
        if Metric.BLEU in self._metrics:
            notes.append(f"SacreBLEU: case:mixed|eff:no|tok:13a|smooth:exp|version:{version('sacrebleu')}")
        if self._bert is not None:
            notes.append(f"BERTScore's encoder: {self._bert.name}")
        if not self._java and self._metrics & {Metric.METEOR, Metric.CIDER, Metric.V2T}:
            notes.append(
                "No Java runtime: METEOR and CIDEr are not the official ones, and VideoXum's set is left out"
            )
        return tuple(notes)

    def rehearse(self) -> None:
        """Runs everything once on a word, so that what is missing shows before answers are waited for.

        Raises:
            ModuleNotFoundError: a library is not installed.
            MetricUnavailable: a tool that a metric needs does not run.
        """
        self.statistics(["word"], [["word"]])
        self._resources.close()  # not to keep METEOR's memory meanwhile
        self._meteor = None

    def statistics(
        self, summaries: Sequence[str], references: Sequence[Sequence[str]]
    ) -> dict[str, Statistic]:
        """By figure name, in the order of LABELS. Valid as long as the scorer's context.

        Raises:
            MetricUnavailable: a tool that a metric needs does not run.
        """
        found: dict[str, Statistic] = {}
        if Metric.ROUGE in self._metrics:
            found |= rouge(summaries, references)
        if Metric.BLEU in self._metrics:
            found["bleu"] = sacrebleu(summaries, references)
        if Metric.NIST in self._metrics:
            found["nist"] = nist(summaries, references)
        if self._metrics & {Metric.METEOR, Metric.CIDER}:
            found |= self._coco(summaries, references)
        if self._bert is not None:
            found["bertscore"] = self._bert.score(summaries, references)
        if Metric.V2T in self._metrics and self._java:
            found |= self._v2t(summaries, references)
        return {name: found[name] for name in LABELS if name in found}

    def _coco(self, summaries: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, Statistic]:
        tokens = coco.penn_tokens if self._java else coco.nltk_tokens
        said, told = tokens([[text] for text in summaries]), tokens(references)
        found = {}
        if Metric.METEOR in self._metrics and self._java:
            found["meteor"] = self._java_meteor().score(said, told)
        elif Metric.METEOR in self._metrics:
            found["meteor_nltk"] = coco.nltk_meteor(said, told)
        if Metric.CIDER in self._metrics:
            found["cider" if self._java else "cider_nltk_tokens"] = coco.cider(said, told)
        return found

    def _v2t(self, summaries: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, Statistic]:
        """The set of VideoXum's eval_v2vt_sum.py: COCOEvalCap's Bleu, METEOR, ROUGE_L and CIDEr."""
        said = coco.penn_tokens([[text] for text in summaries])
        told = coco.penn_tokens([[coco.videoxum_reference(text) for text in texts] for texts in references])
        return {
            **{f"v2t_bleu_{order}": bleu for order, bleu in coco.bleu(said, told).items()},
            "v2t_meteor": self._java_meteor().score(said, told),
            "v2t_rouge_l": coco.rouge_l(said, told),
            "v2t_cider": coco.cider(said, told),
        }

    def _java_meteor(self) -> coco.Meteor:
        if self._meteor is None:
            self._meteor = self._resources.enter_context(coco.Meteor())
        return self._meteor
