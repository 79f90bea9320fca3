"""How the next tokens are chosen from the logits of the rows in flight.

B rows   V vocabulary   T tokens seen   n rows that sample   k likeliest tokens
"""

import logging
from collections.abc import Sequence as Ordered
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import GenerationConfig

from workers.sequence import Sequence

log = logging.getLogger("visum.engine")

NOT_FINITE = -1
"""In the place of a token: the row's logits hold no number to choose by."""

_TEMPERATURE, _TOP_K, _TOP_P = 1.0, 50, 1.0
"""What `generate` samples with where a checkpoint says nothing."""

_APPLIED = frozenset(
    {"eos_token_id", "repetition_penalty", "suppress_tokens", "min_new_tokens"}
    | {"temperature", "top_k", "top_p"}
)
_ELSEWHERE = frozenset(
    {"do_sample", "max_new_tokens", "max_length", "use_cache", "cache_implementation", "renormalize_logits"}
    | {
        "pad_token_id",
        "bos_token_id",
        "transformers_version",
        "_from_model_config",
        "return_dict_in_generate",
    }
)
"""Settings that say nothing about which token comes next here: a seed asks for sampling, a request for its length."""


@dataclass(frozen=True)
class Sampling:
    """What a checkpoint's generation config says about choosing tokens.

    `stop_ids` end an answer, but not before `min_new_tokens`. `repetition_penalty`, 1 for none, and `suppressed`
    tokens apply always; the other three only when a seed asks for sampling. `top_k` 0 is the whole vocabulary.
    """

    stop_ids: frozenset[int]
    repetition_penalty: float
    suppressed: tuple[int, ...]
    min_new_tokens: int
    temperature: float
    top_k: int
    top_p: float

    @classmethod
    def of(cls, config: GenerationConfig) -> "Sampling":
        """As `generate` reads this config. What it asks for beyond that is not done, and said loudly."""
        _name_what_is_not_done(config)
        stop = config.eos_token_id
        return cls(
            stop_ids=frozenset(stop if isinstance(stop, list) else [] if stop is None else [stop]),
            repetition_penalty=float(config.repetition_penalty or 1.0),
            suppressed=tuple(config.suppress_tokens or ()),
            min_new_tokens=config.min_new_tokens or 0,
            temperature=float(config.temperature or _TEMPERATURE),
            top_k=_TOP_K if config.top_k is None else config.top_k,
            top_p=_TOP_P if config.top_p is None else float(config.top_p),
        )


def _name_what_is_not_done(config: GenerationConfig) -> None:
    asked = {
        name: value
        for name, value in config.to_diff_dict().items()
        if name not in _APPLIED | _ELSEWHERE and (value is True or (value and value != 1))
    }
    if asked:
        log.error("the checkpoint's generation config asks for what is not done here: %s", asked)


class Chooser:
    """Chooses for all rows at once; the device is asked nothing. Rows are those of the cache, at most `length` long.

    What is done is what `generate` does with the same config, in the same order. A row's token depends on its own
    logits and its own draw alone, not on which other requests are in flight, nor on the device's generator.
    """

    def __init__(self, sampling: Sampling, *, rows: int, length: int, device: torch.device) -> None:
        self.sampling = sampling
        self._device = device
        self._stops = torch.tensor(sorted(sampling.stop_ids), dtype=torch.long, device=device)
        self._suppressed = torch.tensor(sampling.suppressed, dtype=torch.long, device=device)
        #: (rows, L) the tokens of every row, prompt and answer; its first one again behind them.
        self._seen = (
            torch.zeros(rows, length, dtype=torch.long, device=device)
            if sampling.repetition_penalty != 1.0
            else None
        )

    def join(self, row: int, prompt: Tensor) -> None:
        """Give a row to the request with this prompt (T,)."""
        if self._seen is not None:
            self._seen[row] = int(prompt[0])
            self._seen[row, : len(prompt)] = prompt.to(self._device)

    def note(self, first: int, positions: Tensor, tokens: Tensor) -> None:
        """The rows from `first` on have got these tokens (B,), each at its position (B,) in its row."""
        if self._seen is not None:
            rows = self._seen[first : first + len(tokens)]
            rows.scatter_(1, positions.unsqueeze(1), tokens.unsqueeze(1))

    def move(self, row: int, to: int) -> None:
        """Put the request of one row into another."""
        if self._seen is not None:
            self._seen[to] = self._seen[row]

    def choose(self, sequences: Ordered[Sequence], first: int, logits: Tensor) -> Tensor:
        """The next token of the rows from `first` on, (B,) on the device; NOT_FINITE where there is no telling.

        The logits (B, V) are used up. Greedy, or sampled where a sequence has draws.
        """
        scores = self.processed(sequences, first, logits)  # (B, V)
        chosen = scores.argmax(-1)  # (B,), of a NaN if there is one
        finite = scores.gather(1, chosen.unsqueeze(1)).squeeze(1).isfinite()
        sampled = [row for row, sequence in enumerate(sequences) if sequence.draws is not None]
        if sampled:
            draws = [sequences[row].draws[len(sequences[row].generated)] for row in sampled]
            rows = self._upload(sampled, torch.long)
            own = scores if len(sampled) == len(sequences) else scores.index_select(0, rows)  # (n, V)
            chosen.index_copy_(0, rows, self._drawn(own, self._upload(draws, torch.double)))
        return torch.where(finite, chosen, NOT_FINITE)

    def processed(self, sequences: Ordered[Sequence], first: int, logits: Tensor) -> Tensor:
        """(B, V) what greedy decoding takes the largest of."""
        shortest = self.sampling.min_new_tokens
        young = [row for row, s in enumerate(sequences) if len(s.generated) < shortest]
        logits = logits.float()
        if self._seen is not None:
            tokens = max(s.request.prompt.tokens + len(s.generated) for s in sequences)  # T
            seen = self._seen[first : first + len(sequences), :tokens]  # (B, T)
            scores, penalty = logits.gather(1, seen), self.sampling.repetition_penalty
            logits.scatter_(1, seen, torch.where(scores < 0, scores * penalty, scores / penalty))
        for row in young:
            logits[row].index_fill_(0, self._stops, -torch.inf)
        if self.sampling.suppressed:
            logits.index_fill_(1, self._suppressed, -torch.inf)
        return logits

    def likeliest(self, scores: Tensor) -> tuple[Tensor, Tensor]:
        """Probabilities and ids (n, k) of what is sampled from, the likeliest first; 0 for what top-p leaves out.

        Equal ones stand by their ids: neither sort nor sum may depend on how many rows there are.
        """
        sampling = self.sampling
        if 0 < sampling.top_k < scores.shape[1]:
            ids, _ = scores.topk(sampling.top_k).indices.sort()
            values, by_value = scores.gather(1, ids).sort(stable=True, descending=True)
            ids = ids.gather(1, by_value)
        else:
            values, ids = scores.sort(stable=True, descending=True)
        probabilities = (values.double() / sampling.temperature).softmax(-1)
        before = probabilities.cumsum(-1) - probabilities
        if sampling.top_p < 1.0:
            probabilities = probabilities.where(before < sampling.top_p, 0.0)
        return probabilities, ids

    def _drawn(self, scores: Tensor, draws: Tensor) -> Tensor:
        """(n,) of the scores (n, V): the first token at which the summed probability passes the draw (n,)."""
        probabilities, ids = self.likeliest(scores)
        reached = probabilities.cumsum(-1)  # (n, k)
        place = (reached <= draws.unsqueeze(1) * reached[:, -1:]).sum(-1)
        place = place.minimum((probabilities > 0).sum(-1) - 1).clamp(min=0)
        return ids.gather(1, place.unsqueeze(1)).squeeze(1)

    def _upload(self, values: list, dtype: torch.dtype) -> Tensor:
        """To the device without waiting for what it is doing."""
        tensor = torch.tensor(values, dtype=dtype)
        if self._device.type == "cpu":
            return tensor
        return tensor.pin_memory().to(self._device, non_blocking=True)
