"""Greedy answers with experts, batched, to watch the training. Serving has its own engine."""

from __future__ import annotations

from collections import defaultdict
from contextlib import AbstractContextManager

import torch
from rouge_score.rouge_scorer import RougeScorer
from transformers import PreTrainedTokenizerFast

from milora import MiloraModel, Routing
from training.backbone.batches import Batch, collate
from training.backbone.decoding import greedy
from training.backbone.pixels import normalize, patchify
from training.backbone.rendering import Sample
from training.backbone.sampling import PATCHES_PER_FRAME
from training.backbone.tokenizer import TURN_END
from training.backbone.validation import Quality
from training.experts.forward import AdaptedForward

_ANSWER_LIMIT = 160  # tokens; the longest reference has about 80


def answer_with_experts(
    fast: AdaptedForward,
    handle: MiloraModel,
    tokenizer: PreTrainedTokenizerFast,
    samples: list[Sample],
    instruction: str,
) -> Quality:
    """Exact match and ROUGE-L of greedy answers by the adapter in slot 1."""
    by_frames: dict[int, list[Sample]] = defaultdict(list)
    for sample in samples:
        by_frames[len(sample.times_s)].append(sample)
    scorer, exact, rouge, pairs = RougeScorer(["rougeL"]), 0, 0.0, []
    end = tokenizer.convert_tokens_to_ids(TURN_END)
    for members in by_frames.values():
        batch = collate(members, tokenizer, instruction)
        patches = patchify(normalize(batch.frames))
        around = _ExpertsDecoding(handle, batch)
        ids = greedy(fast, patches, batch.prompt, end=end, limit=_ANSWER_LIMIT, around=around)
        for sample, text in zip(members, map(str.strip, tokenizer.batch_decode(ids)), strict=True):
            pairs.append((text, sample.summary))
            exact += text == sample.summary
            rouge += scorer.score(sample.summary, text)["rougeL"].fmeasure
    return Quality(len(samples), exact / len(samples), rouge / len(samples), *pairs[0])


class _ExpertsDecoding:
    """Routes the passes of one greedy decoding: gates are computed with the prompt and reused after it."""

    def __init__(self, handle: MiloraModel, batch: Batch) -> None:
        self._handle = handle
        self._prompt = handle.route(
            [1] * batch.clips,
            prompt_mask=torch.ones_like(batch.prompt, dtype=torch.bool),
            patches=[batch.frames.shape[1] * PATCHES_PER_FRAME] * batch.clips,
        )
        self._later: Routing | None = None

    def __call__(self, step: int) -> AbstractContextManager[Routing]:
        if step == 0:
            return self._handle.use(self._prompt)
        if self._later is None:
            self._later = self._handle.reuse(self._handle.records(self._prompt))
        return self._handle.use(self._later)
