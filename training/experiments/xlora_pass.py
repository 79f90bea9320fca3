"""The fast pass for X-LoRA: the frozen model first, whose last hidden states weigh the experts of a second pass."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from training.backbone.decoding import cached_layer
from training.backbone.forward import rms_norm
from training.backbone.pixels import normalize, patchify
from training.backbone.tokenizer import TURN_END
from training.experiments.baselines import PeftXLora
from training.experts.forward import AdaptedForward
from training.trainer.fast import FastPass
from training.trainer.method import Method
from training.trainer.passes import Pair


class XLoraForward(AdaptedForward):
    """Two passes of the language model over one embedding; the tower is not adapted and runs once."""

    def __init__(self, model, method: PeftXLora) -> None:
        super().__init__(model)
        self._method = method

    def hidden(self, x: Tensor, kept: int) -> Tensor:
        with self._method.silent():
            frozen = super().hidden(x, x.shape[1])
        with self._method.weighed(frozen):
            return super().hidden(x, kept)

    @torch.no_grad()
    def answer(self, patches: Tensor, prompt: Tensor, *, end: int, limit: int) -> list[list[int]]:
        """Greedy answers, both passes with caches of their own: a token's weights depend on what is before it."""
        batch, length = prompt.shape
        heads = self.text.config.num_attention_heads
        head = self.text.config.hidden_size // heads
        shape = (2, len(self.text.layers), 2, batch, heads, length + limit, head)
        frozen_cache, cache = torch.empty(shape, dtype=self.dtype)
        mask = torch.full((length, length), float("-inf"), dtype=self.dtype).triu(1)
        running, tokens = torch.ones(batch, dtype=torch.bool), []
        x, start = self.embed(patches, prompt, prompt[:, :0]), 0
        for step in range(limit):
            if step:
                x, start = F.embedding(tokens[-1][:, None], self.text.embed_tokens.weight), length + step - 1
            own_mask = None if step else mask
            with self._method.silent():
                frozen = self._run(x, frozen_cache, start, own_mask, length + limit)
            with self._method.weighed(frozen):
                hidden = self._run(x, cache, start, own_mask, length + limit)
            logits = F.linear(hidden[:, -1], self.text.embed_tokens.weight)
            tokens.append(torch.where(running, logits.argmax(-1), end))
            running &= tokens[-1] != end
            if not running.any():
                break
        return [[token for token in row if token != end] for row in torch.stack(tokens, 1).tolist()]

    def _run(self, x: Tensor, caches: Tensor, start: int, mask: Tensor | None, length: int) -> Tensor:
        tables = self.text_tables(length)
        for layer, cache in zip(self.text.layers, caches, strict=True):
            x = cached_layer(layer, x, tables, cache, start, mask)
        return rms_norm(self.text.norm, x)


class XLoraPass(FastPass):
    """Training and answers through `XLoraForward`."""

    def __init__(self, model, tokenizer, method: PeftXLora) -> None:
        super().__init__(model, tokenizer, forward=XLoraForward(model, method))

    def answers(self, pairs: Sequence[Pair], method: Method, limit: int) -> list[str]:
        by_frames: dict[int, list[int]] = defaultdict(list)
        for index, pair in enumerate(pairs):
            by_frames[len(pair.times_s)].append(index)
        end = self._tokenizer.convert_tokens_to_ids(TURN_END)
        answers = [""] * len(pairs)
        for members in by_frames.values():
            batch = self.read([pairs[index] for index in members])
            patches = patchify(normalize(batch.frames))
            ids = self.forward.answer(patches, batch.prompt, end=end, limit=limit)
            for index, text in zip(members, self._tokenizer.batch_decode(ids), strict=True):
                answers[index] = text.strip()
        return answers
