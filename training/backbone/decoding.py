"""Batched greedy decoding over the fast forward pass, to watch the training. Serving has its own engine."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.backbone.forward import LanguageForward, attend, finish_layer, heads, project, rms_norm, rotate


def cached_layer(
    layer: nn.Module, x: Tensor, tables: tuple[Tensor, Tensor], cache: Tensor, start: int, mask: Tensor | None
) -> Tensor:
    """One decoder layer for positions ``start ...``; keys and values go to ``cache`` ``(2, B, heads, N, head)``."""
    stop = start + x.shape[1]
    cos, sin = (table[start:stop] for table in tables)
    attention = layer.self_attn
    h = rms_norm(layer.input_layernorm, x)
    count = attention.config.num_attention_heads
    q, k, v = (heads(y, count) for y in project(h, attention.q_proj, attention.k_proj, attention.v_proj))
    cache[0, :, :, start:stop] = rotate(k, cos, sin)
    cache[1, :, :, start:stop] = v
    return finish_layer(
        layer, x, attend(rotate(q, cos, sin), cache[0, :, :, :stop], cache[1, :, :, :stop], mask)
    )


@torch.no_grad()
def greedy(
    fast: LanguageForward,
    pictures: Tensor,
    prompt: Tensor,
    *,
    end: int,
    limit: int,
    around: Callable[[int], AbstractContextManager[object]] = lambda step: nullcontext(),
) -> list[list[int]]:
    """The most likely answers to equally long prompts ``(B, P)``, without their end token, ``limit`` tokens at most.

    ``around(step)`` is entered for every pass, the prompt's being step 0: it is where experts are routed.
    """
    batch, length = prompt.shape
    layers = fast.text.layers
    config = fast.text.config
    head = config.hidden_size // config.num_attention_heads
    shape = (len(layers), 2, batch, config.num_attention_heads, length + limit, head)
    caches = torch.empty(shape, dtype=fast.dtype)
    tables = fast.text_tables(length + limit)
    mask = torch.full((length, length), float("-inf"), dtype=fast.dtype).triu(1)
    tokens, running = [], torch.ones(batch, dtype=torch.bool)
    for step in range(limit):
        start = 0 if step == 0 else length + step - 1
        with around(step):
            if step == 0:
                x = fast.embed(pictures, prompt, prompt[:, :0])
            else:
                x = F.embedding(tokens[-1][:, None], fast.text.embed_tokens.weight)
            for layer, cache in zip(layers, caches, strict=True):
                x = cached_layer(layer, x, tables, cache, start, mask if step == 0 else None)
        logits = F.linear(rms_norm(fast.text.norm, x[:, -1]), fast.text.embed_tokens.weight)
        chosen = torch.where(running, logits.argmax(-1), end)
        tokens.append(chosen)
        running &= chosen != end
        if not running.any():
            break
    return [[token for token in row if token != end] for row in torch.stack(tokens, dim=1).tolist()]
