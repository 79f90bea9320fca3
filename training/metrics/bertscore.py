"""BERTScore (Zhang et al. 2020) by bert-score, with an encoder of one's own choice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from training.metrics.errors import MetricUnavailable
from training.metrics.figure import Statistic, mean


@dataclass(frozen=True)
class Encoder:
    """``model`` is a name of the hub or a folder; ``layer`` the one whose output is compared.

    Without ``layer`` it is bert-score's own choice for the encoders that it knows, and the last one for others.
    """

    model: str
    layer: int | None = None


class BertScore:
    """bert-score's F1 without idf or rescaling; of several references the best. A summary without a word scores 0."""

    def __init__(self, encoder: Encoder) -> None:
        """Loads the encoder.

        Raises:
            MetricUnavailable: it cannot be loaded.
        """
        from bert_score import BERTScorer
        from bert_score.utils import model2layers
        from transformers import AutoConfig

        try:
            config = AutoConfig.from_pretrained(encoder.model)
            layer = encoder.layer or model2layers.get(encoder.model, config.num_hidden_layers)
            self._scorer = BERTScorer(model_type=encoder.model, num_layers=layer)
        except (OSError, ValueError, AssertionError) as error:  # the last: it has fewer layers
            reason = str(error).partition("\n")[0]
            raise MetricUnavailable(
                f"BERTScore's encoder {encoder.model} cannot be loaded: {reason}"
            ) from error
        # bert-score hands the tokenizer's longest input on; some know none and say a number that does not fit.
        tokenizer = self._scorer._tokenizer
        longest = getattr(config, "max_position_embeddings", tokenizer.model_max_length)
        tokenizer.model_max_length = min(tokenizer.model_max_length, longest)
        self.name = f"{encoder.model}, layer {layer}"

    def score(self, summaries: Sequence[str], references: Sequence[Sequence[str]]) -> Statistic:
        """The mean F1."""
        scores = [0.0] * len(summaries)
        told = [
            i for i, said in enumerate(summaries) if said.strip()
        ]  # bert-score cannot encode an empty text
        if told:
            texts = [list(references[i]) for i in told]
            _, _, f1 = self._scorer.score([summaries[i] for i in told], texts)
            for i, score in zip(told, f1.tolist(), strict=True):
                scores[i] = score
        return mean(scores)
