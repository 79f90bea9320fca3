"""The training forward pass with experts: the backbone's fast pass, but through the modules that carry adapters.

``FastForward`` reads weights and skips what an answer does not need. Experts add to the *output of modules* and their
gates pool over whole prompts, so here every adapted layer is called as a module and over every position.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.backbone.forward import FastForward, attend, heads, rms_norm, rotate, vision_rope
from training.backbone.sampling import PATCH, PATCHES_PER_FRAME


class AdaptedForward(FastForward):
    """The pass over a model with injected experts; call it under the adapter's routing."""

    def patch_features(self, patches: Tensor) -> Tensor:
        """``(F, 48, 192)`` patches to ``(F, 48, 128)`` features after the tower's last norm."""
        convolution = self.vision.embeddings.patch_embedding
        config = self.vision.config
        squares = patches.reshape(-1, 3, PATCH, PATCH).to(self.dtype)
        x = convolution(squares).view(-1, PATCHES_PER_FRAME, config.hidden_size)
        head = config.hidden_size // config.num_attention_heads
        cos, sin = (t.to(self.dtype) for t in vision_rope(head, config.rope_parameters["rope_theta"]))
        for layer in self.vision.encoder.layers:
            x = _vision_layer(layer, x, cos, sin)
        return self.vision.post_layernorm(x)

    def hidden(self, x: Tensor, kept: int) -> Tensor:
        """Normalized last hidden states ``(B, kept, C)`` of the last ``kept`` positions of ``(B, N, C)``."""
        length = x.shape[1]
        cos, sin = self.text_tables(length)
        mask = torch.full((length, length), float("-inf"), dtype=self.dtype).triu(1)
        for layer in self.text.layers:
            x = _text_layer(layer, x, cos, sin, mask)
        return rms_norm(self.text.norm, x[:, -kept:])


def _vision_layer(layer: nn.Module, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    attention = layer.self_attn
    h = layer.layer_norm1(x)
    q, k, v = (
        heads(p(h), attention.num_heads) for p in (attention.q_proj, attention.k_proj, attention.v_proj)
    )
    mixed = attend(rotate(q, cos, sin), rotate(k, cos, sin), v, None).transpose(1, 2).flatten(2)
    x = x + attention.out_proj(mixed)
    h = layer.mlp.fc1(layer.layer_norm2(x))
    return x + layer.mlp.fc2(F.gelu(h, approximate="tanh"))


def _text_layer(layer: nn.Module, x: Tensor, cos: Tensor, sin: Tensor, mask: Tensor) -> Tensor:
    attention = layer.self_attn
    count = attention.config.num_attention_heads
    h = rms_norm(layer.input_layernorm, x)
    q, k, v = (heads(p(h), count) for p in (attention.q_proj, attention.k_proj, attention.v_proj))
    mixed = attend(rotate(q, cos, sin), rotate(k, cos, sin), v, mask)
    x = x + attention.o_proj(mixed.transpose(1, 2).flatten(2))
    h = rms_norm(layer.post_attention_layernorm, x)
    return x + layer.mlp.down_proj(F.silu(layer.mlp.gate_proj(h)) * layer.mlp.up_proj(h))
