"""Greedy answers with experts, batched, to watch the training. Serving has its own engine."""

from __future__ import annotations

from collections import defaultdict

import torch
from rouge_score.rouge_scorer import RougeScorer
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedTokenizerFast

from milora import MiloraModel
from training.backbone.batches import Batch, collate
from training.backbone.forward import attend, heads, rms_norm, rotate
from training.backbone.pixels import normalize, patchify
from training.backbone.rendering import Sample
from training.backbone.sampling import PATCHES_PER_FRAME
from training.backbone.tokenizer import TURN_END
from training.backbone.validation import Quality
from training.experts.forward import AdaptedForward

_ANSWER_LIMIT = 200  # tokens; the longest reference has about 150


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
    for members in by_frames.values():
        texts = _greedy(fast, handle, collate(members, tokenizer, instruction), tokenizer)
        for sample, text in zip(members, texts, strict=True):
            pairs.append((text, sample.summary))
            exact += text == sample.summary
            rouge += scorer.score(sample.summary, text)["rougeL"].fmeasure
    return Quality(len(samples), exact / len(samples), rouge / len(samples), *pairs[0])


@torch.no_grad()
def _greedy(
    fast: AdaptedForward, handle: MiloraModel, batch: Batch, tokenizer: PreTrainedTokenizerFast
) -> list[str]:
    end, (videos, length) = tokenizer.convert_tokens_to_ids(TURN_END), batch.prompt.shape
    patches = patchify(normalize(batch.frames))
    counts = [batch.frames.shape[1] * PATCHES_PER_FRAME] * videos
    caches: list[list[Tensor]] = [[] for _ in fast.text.layers]
    everywhere = torch.ones(videos, length, dtype=torch.bool)
    with handle.prefill([1] * videos, prompt_mask=everywhere, patches=counts) as routing:
        x = fast.embed(patches, batch.prompt, batch.prompt[:, :0])
        chosen = _next_tokens(fast, x, caches, 0)
    reuse = handle.reuse(handle.records(routing))
    tokens, running = [chosen], chosen != end
    with handle.use(reuse):
        while running.any() and len(tokens) < _ANSWER_LIMIT:
            x = F.embedding(tokens[-1][:, None], fast.text.embed_tokens.weight)
            chosen = torch.where(running, _next_tokens(fast, x, caches, length + len(tokens) - 1), end)
            tokens.append(chosen)
            running &= chosen != end
    rows = torch.stack(tokens, dim=1).tolist()
    return [text.strip() for text in tokenizer.batch_decode([[t for t in row if t != end] for row in rows])]


def _next_tokens(fast: AdaptedForward, x: Tensor, caches: list[list[Tensor]], start: int) -> Tensor:
    """The most likely next token (B,) after positions ``start`` ... of ``x`` (B, n, C); grows the caches."""
    stop = start + x.shape[1]
    cos, sin = (table[start:stop] for table in fast.text_tables(stop))
    mask = torch.full((stop, stop), float("-inf"), dtype=fast.dtype).triu(1)[start:]
    for layer, cache in zip(fast.text.layers, caches, strict=True):
        x = _cached_layer(layer, x, cos, sin, cache, mask)
    return F.linear(rms_norm(fast.text.norm, x[:, -1]), fast.text.embed_tokens.weight).argmax(-1)


def _cached_layer(
    layer: nn.Module, x: Tensor, cos: Tensor, sin: Tensor, cache: list[Tensor], mask: Tensor
) -> Tensor:
    attention = layer.self_attn
    count = attention.config.num_attention_heads
    h = rms_norm(layer.input_layernorm, x)
    q, k, v = (heads(p(h), count) for p in (attention.q_proj, attention.k_proj, attention.v_proj))
    k = rotate(k, cos, sin)
    cache[:] = [torch.cat([cache[0], k], 2), torch.cat([cache[1], v], 2)] if cache else [k, v]
    mixed = attend(rotate(q, cos, sin), cache[0], cache[1], mask)
    x = x + attention.o_proj(mixed.transpose(1, 2).flatten(2))
    h = rms_norm(layer.post_attention_layernorm, x)
    return x + layer.mlp.down_proj(F.silu(layer.mlp.gate_proj(h)) * layer.mlp.up_proj(h))
