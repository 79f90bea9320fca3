"""The original Video-LLaMA once more, written as plain functions over tensors by their released names.

From arXiv 2306.02858 and the modules of DAMO-NLP-SG/Video-LLaMA; nothing of `milora` or of `transformers`' BLIP-2.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

Weights = Mapping[str, Tensor]


def random_weights(
    *,
    side: int = 16,
    patch: int = 4,
    tower: int = 24,
    tower_mlp: int = 32,
    tower_layers: int = 2,
    width: int = 24,
    width_mlp: int = 32,
    layers: int = 2,
    queries: int = 4,
    video_queries: int = 6,
    frames: int = 8,
    llama: int = 32,
    seed: int = 5,
) -> dict[str, Tensor]:
    """Random tensors under all released names: Video-LLaMA's own, BLIP-2's and EVA-CLIP's."""
    generator = torch.Generator().manual_seed(seed)
    weights: dict[str, Tensor] = {}

    def draw(name: str, *shape: int) -> None:
        weights[name] = torch.randn(*shape, generator=generator) * 0.3

    def linear(name: str, outputs: int, inputs: int) -> None:
        draw(f"{name}.weight", outputs, inputs)
        draw(f"{name}.bias", outputs)

    def norm(name: str, size: int) -> None:
        draw(f"{name}.weight", size)
        draw(f"{name}.bias", size)

    def qformer(name: str, cross_every: int, seen: int) -> None:
        norm(f"{name}.bert.embeddings.LayerNorm", width)
        for i in range(layers):
            layer = f"{name}.bert.encoder.layer.{i}"
            kinds = ["attention", "crossattention"] if i % cross_every == 0 else ["attention"]
            for kind in kinds:
                linear(f"{layer}.{kind}.self.query", width, width)
                for part in ("key", "value"):
                    linear(f"{layer}.{kind}.self.{part}", width, seen if kind == "crossattention" else width)
                linear(f"{layer}.{kind}.output.dense", width, width)
                norm(f"{layer}.{kind}.output.LayerNorm", width)
            linear(f"{layer}.intermediate_query.dense", width_mlp, width)
            linear(f"{layer}.output_query.dense", width, width_mlp)
            norm(f"{layer}.output_query.LayerNorm", width)

    draw("visual_encoder.cls_token", 1, 1, tower)
    draw("visual_encoder.pos_embed", 1, (side // patch) ** 2 + 1, tower)
    draw("visual_encoder.patch_embed.proj.weight", tower, 3, patch, patch)
    draw("visual_encoder.patch_embed.proj.bias", tower)
    for i in range(tower_layers):
        block = f"visual_encoder.blocks.{i}"
        norm(f"{block}.norm1", tower)
        norm(f"{block}.norm2", tower)
        draw(f"{block}.attn.qkv.weight", 3 * tower, tower)
        draw(f"{block}.attn.q_bias", tower)
        draw(f"{block}.attn.v_bias", tower)
        linear(f"{block}.attn.proj", tower, tower)
        linear(f"{block}.mlp.fc1", tower_mlp, tower)
        linear(f"{block}.mlp.fc2", tower, tower_mlp)
    norm("ln_vision", tower)
    draw("query_tokens", 1, queries, width)
    qformer("Qformer", cross_every=2, seen=tower)
    draw("video_frame_position_embedding.weight", frames, width)
    draw("video_query_tokens", 1, video_queries, width)
    qformer("video_Qformer", cross_every=1, seen=width)
    linear("llama_proj", llama, width)
    return weights


def video_tokens(w: Weights, video: Tensor, heads: int) -> Tensor:
    """image (b, c, t, h, w), as the released code takes it → (b, queries, llama)."""
    b, _, t, _, _ = video.shape
    frames = video.permute(0, 2, 1, 3, 4).flatten(0, 1)  # (b t) c h w
    patches = _norm(w, "ln_vision", _eva_clip(w, frames, heads), 1e-5)
    tokens = _qformer(w, "Qformer", w["query_tokens"].expand(b * t, -1, -1), patches, heads)  # (b t) q h
    tokens = tokens.unflatten(0, (b, t)) + w["video_frame_position_embedding.weight"][:t, None]
    tokens = tokens.reshape(b, -1, tokens.shape[-1])  # b (t q) h
    seen = _qformer(w, "video_Qformer", w["video_query_tokens"].expand(b, -1, -1), tokens, heads)
    return _linear(w, "llama_proj", seen)


def _linear(w: Weights, name: str, x: Tensor) -> Tensor:
    return F.linear(x, w[f"{name}.weight"], w[f"{name}.bias"])


def _norm(w: Weights, name: str, x: Tensor, eps: float) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], w[f"{name}.weight"], w[f"{name}.bias"], eps)


def _attention(q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
    q, k, v = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (q, k, v))
    weights = (q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])).softmax(-1)
    return (weights @ v).transpose(1, 2).flatten(2)


def _eva_clip(w: Weights, frames: Tensor, heads: int) -> Tensor:
    kernel = w["visual_encoder.patch_embed.proj.weight"]
    x = F.conv2d(frames, kernel, w["visual_encoder.patch_embed.proj.bias"], stride=kernel.shape[-1])
    x = x.flatten(2).transpose(1, 2)
    x = (
        torch.cat([w["visual_encoder.cls_token"].expand(len(x), -1, -1), x], 1)
        + w["visual_encoder.pos_embed"]
    )
    i = 0
    while f"visual_encoder.blocks.{i}.norm1.weight" in w:
        block = f"visual_encoder.blocks.{i}"
        bias = torch.cat([w[f"{block}.attn.q_bias"], torch.zeros(x.shape[-1]), w[f"{block}.attn.v_bias"]])
        qkv = F.linear(_norm(w, f"{block}.norm1", x, 1e-6), w[f"{block}.attn.qkv.weight"], bias)
        x = x + _linear(w, f"{block}.attn.proj", _attention(*qkv.chunk(3, -1), heads))
        hidden = F.gelu(_linear(w, f"{block}.mlp.fc1", _norm(w, f"{block}.norm2", x, 1e-6)))
        x = x + _linear(w, f"{block}.mlp.fc2", hidden)
        i += 1
    return x


def _qformer(w: Weights, name: str, queries: Tensor, seen: Tensor, heads: int) -> Tensor:
    """BERT whose queries look at ``seen`` in the layers that have a crossattention; norms after, as in BERT."""
    x = _norm(w, f"{name}.bert.embeddings.LayerNorm", queries, 1e-12)
    i = 0
    while f"{name}.bert.encoder.layer.{i}.attention.self.query.weight" in w:
        layer = f"{name}.bert.encoder.layer.{i}"
        x = _attend(w, f"{layer}.attention", x, x, heads)
        if f"{layer}.crossattention.self.query.weight" in w:
            x = _attend(w, f"{layer}.crossattention", x, seen, heads)
        hidden = F.gelu(_linear(w, f"{layer}.intermediate_query.dense", x))
        x = _norm(
            w, f"{layer}.output_query.LayerNorm", _linear(w, f"{layer}.output_query.dense", hidden) + x, 1e-12
        )
        i += 1
    return x


def _attend(w: Weights, name: str, x: Tensor, seen: Tensor, heads: int) -> Tensor:
    q = _linear(w, f"{name}.self.query", x)
    k, v = _linear(w, f"{name}.self.key", seen), _linear(w, f"{name}.self.value", seen)
    mixed = _linear(w, f"{name}.output.dense", _attention(q, k, v, heads))
    return _norm(w, f"{name}.output.LayerNorm", mixed + x, 1e-12)
