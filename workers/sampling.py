"""How the next token is chosen from a request's logits."""

from collections.abc import Sequence as Ordered
from dataclasses import dataclass

import torch
from transformers import (
    GenerationConfig,
    LogitsProcessorList,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from workers.sequence import Sequence

_TEMPERATURE = 0.7
_TOP_P = 0.9


@dataclass(frozen=True)
class Chooser:
    """What a checkpoint's generation config says about choosing tokens.

    `stop_ids` end an answer. `penalties` apply always, `warpers` only when a seed asks for sampling.
    """

    stop_ids: frozenset[int]
    penalties: LogitsProcessorList
    warpers: LogitsProcessorList

    @classmethod
    def of(cls, config: GenerationConfig) -> "Chooser":
        """The same processors in the same order as `generate` makes from this config."""
        stop = config.eos_token_id
        stop_ids = frozenset(stop if isinstance(stop, list) else [] if stop is None else [stop])
        penalties, warpers = LogitsProcessorList(), LogitsProcessorList()
        if config.repetition_penalty is not None and config.repetition_penalty != 1.0:
            penalties.append(RepetitionPenaltyLogitsProcessor(penalty=config.repetition_penalty))
        warpers.append(TemperatureLogitsWarper(float(config.temperature or _TEMPERATURE)))
        if config.top_k:
            warpers.append(TopKLogitsWarper(top_k=config.top_k))
        warpers.append(TopPLogitsWarper(top_p=float(config.top_p or _TOP_P)))
        return cls(stop_ids, penalties, warpers)

    def choose(self, sequences: Ordered[Sequence], logits: torch.Tensor) -> torch.Tensor:
        """The next token of every sequence, (B,) on the logits' device, given the logits (B, V)."""
        chosen = logits.argmax(-1)
        for row, sequence in enumerate(sequences):
            if self.penalties or sequence.generator is not None:
                chosen[row] = self._one(sequence, logits[row])
        return chosen

    def _one(self, sequence: Sequence, logits: torch.Tensor) -> int:
        """The next token of one sequence, given its logits (V,).

        Greedy without a seed. With one the draw is made on the CPU from this request's logits alone,
        so that it does not depend on which other requests are in flight, nor on the device's own generator.
        """
        seen = torch.tensor([sequence.ids], device=logits.device)  # (1, T)
        scores = self.penalties(seen, logits.float().unsqueeze(0))  # (1, V)
        if sequence.generator is None:
            return int(scores.argmax(-1))
        probabilities = self.warpers(seen, scores).softmax(-1).cpu()
        return int(torch.multinomial(probabilities, 1, generator=sequence.generator))
