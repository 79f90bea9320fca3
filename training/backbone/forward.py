"""The training forward pass: the stock model's parameters and mathematics, without its loop over frames.

All frames have one size and all prompts of a batch one length, so the vision attention runs over ``(frames, 48)`` at
once, the language model needs no mask but the causal one, and its last layer is computed for the answer only. A test
holds the logits against the stock model's.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.backbone.pixels import patchify
from training.backbone.sampling import MERGE, PATCHES_PER_FRAME, TOKEN_COLUMNS, TOKEN_ROWS, TOKENS_PER_FRAME


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary embedding of ``(..., N, head)`` by ``(N, head)`` tables, halves paired."""
    low, high = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-high, low), dim=-1) * sin


@cache
def vision_rope(head: int, theta: float) -> tuple[Tensor, Tensor]:
    """Tables ``(48, head)`` of one frame's patches in block order: half the angles for rows, half for columns."""
    rows = torch.arange(TOKEN_ROWS * MERGE).view(TOKEN_ROWS, 1, MERGE, 1)
    columns = torch.arange(TOKEN_COLUMNS * MERGE).view(1, TOKEN_COLUMNS, 1, MERGE)
    shape = (TOKEN_ROWS, TOKEN_COLUMNS, MERGE, MERGE)
    places = torch.stack([rows.expand(shape).flatten(), columns.expand(shape).flatten()], dim=1).float()
    frequencies = 1.0 / theta ** (torch.arange(0, head // 2, 2).float() / (head // 2))
    angles = (places[:, :, None] * frequencies).flatten(1)  # (48, head / 2)
    angles = torch.cat([angles, angles], dim=1)
    return angles.cos(), angles.sin()


@cache
def text_rope(length: int, head: int, theta: float) -> tuple[Tensor, Tensor]:
    """Tables ``(length, head)`` of the language model's positions."""
    frequencies = 1.0 / theta ** (torch.arange(0, head, 2).float() / head)
    angles = torch.arange(length).float()[:, None] * frequencies
    angles = torch.cat([angles, angles], dim=1)
    return angles.cos(), angles.sin()


def heads(x: Tensor, count: int) -> Tensor:
    """``(B, N, C)`` to ``(B, count, N, C / count)``."""
    return x.unflatten(-1, (count, -1)).transpose(1, 2)


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    """Attention over ``(B, heads, N, head)`` spelled out: on a CPU its backward is several times faster than SDPA's."""
    scores = q @ (k * k.shape[-1] ** -0.5).transpose(-1, -2)
    if mask is not None:
        scores = scores + mask
    return F.softmax(scores, dim=-1) @ v


def project(x: Tensor, *layers: nn.Linear) -> tuple[Tensor, ...]:
    """Several linear layers on one input: as one product, or one by one where something is added to them."""
    if any(type(layer) is not nn.Linear or layer._forward_hooks for layer in layers):
        return tuple(layer(x) for layer in layers)
    biases = None if layers[0].bias is None else torch.cat([layer.bias for layer in layers])
    y = F.linear(x, torch.cat([layer.weight for layer in layers]), biases)
    return y.split([layer.out_features for layer in layers], dim=-1)


def vision_layer(layer: nn.Module, x: Tensor, cos: Tensor | None = None, sin: Tensor | None = None) -> Tensor:
    """One encoder layer over ``(frames, N, C)``; attention stays within a frame. Without tables nothing is rotated."""
    attention = layer.self_attn
    h = layer.layer_norm1(x)
    q, k, v = (
        heads(y, attention.num_heads)
        for y in project(h, attention.q_proj, attention.k_proj, attention.v_proj)
    )
    if cos is not None:
        q, k = rotate(q, cos, sin), rotate(k, cos, sin)
    x = x + attention.out_proj(attend(q, k, v, None).transpose(1, 2).flatten(2))
    h = layer.mlp.fc1(layer.layer_norm2(x))
    return x + layer.mlp.fc2(layer.mlp.activation_fn(h))


def rms_norm(norm: nn.Module, x: Tensor) -> Tensor:
    """The stock RMSNorm: statistics in fp32."""
    wide = x.float()
    wide = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + norm.variance_epsilon)
    return norm.weight * wide.to(x.dtype)


def finish_layer(layer: nn.Module, x: Tensor, mixed: Tensor) -> Tensor:
    """What follows attention: output projection, residual, gated MLP."""
    x = x + layer.self_attn.o_proj(mixed.transpose(1, 2).flatten(2))
    gate, up = project(rms_norm(layer.post_attention_layernorm, x), layer.mlp.gate_proj, layer.mlp.up_proj)
    return x + layer.mlp.down_proj(F.silu(gate) * up)


def text_layer(layer: nn.Module, x: Tensor, cos: Tensor, sin: Tensor, mask: Tensor) -> Tensor:
    """One decoder layer over ``(B, N, C)``; ``mask`` ``(N, N)`` is additive."""
    attention = layer.self_attn
    h = rms_norm(layer.input_layernorm, x)
    count = attention.config.num_attention_heads
    q, k, v = (heads(y, count) for y in project(h, attention.q_proj, attention.k_proj, attention.v_proj))
    return finish_layer(layer, x, attend(rotate(q, cos, sin), rotate(k, cos, sin), v, mask))


def last_layer(layer: nn.Module, x: Tensor, cos: Tensor, sin: Tensor, mask: Tensor) -> Tensor:
    """The last layer for the last ``S`` positions only, ``mask`` ``(S, N)``: ``(B, S, C)``."""
    attention, kept = layer.self_attn, mask.shape[0]
    count = attention.config.num_attention_heads
    h = rms_norm(layer.input_layernorm, x)
    k, v = (heads(y, count) for y in project(h, attention.k_proj, attention.v_proj))
    q = rotate(heads(attention.q_proj(h[:, -kept:]), count), cos[-kept:], sin[-kept:])
    return finish_layer(layer, x[:, -kept:], attend(q, rotate(k, cos, sin), v, mask))


class LanguageForward(ABC):
    """The forward pass over one model's live parameters, of which a subclass is the half that sees the video.

    ``vision``, ``projector`` and ``text`` are the model's parts; ``compiled`` fuses each layer with ``torch.compile``.
    """

    def __init__(self, model: nn.Module, *, compiled: bool = False) -> None:
        self.model = model
        self.vision, self.projector, self.text = self.parts(model)
        layers = (vision_layer, text_layer, last_layer)
        if compiled:
            layers = tuple(torch.compile(layer, dynamic=True) for layer in layers)
        self.vision_layer, self.text_layer, self.last_layer = layers

    @staticmethod
    @abstractmethod
    def parts(model: nn.Module) -> tuple[nn.Module, nn.Module, nn.Module]:
        """Vision tower, what projects its features, language model without its head."""

    @staticmethod
    @abstractmethod
    def pictures(frames: Tensor) -> Tensor:
        """Normalized frames ``(..., T, 48, 64, 3)`` as the tower takes them."""

    @staticmethod
    @abstractmethod
    def rows(frames: Tensor) -> dict[str, Sequence[int]]:
        """For the routing of experts: how many rows of the tower belong to each video of ``(B, T, 48, 64, 3)``."""

    @abstractmethod
    def patch_features(self, pictures: Tensor) -> Tensor:
        """The tower's features of ``F`` frames: ``(F, patches, D)``."""

    @abstractmethod
    def video(self, pictures: Tensor) -> Tensor:
        """What the language model reads, in the order of the prompts' placeholders: ``(..., C)``."""

    @abstractmethod
    def cells(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        """What dense pre-training names: patches ``(F, 48, D)`` in block order, tokens ``(F / f, 12, C)`` of ``f``
        frames each."""

    @property
    def dtype(self) -> torch.dtype:
        return self.text.embed_tokens.weight.dtype

    def embed(self, pictures: Tensor | None, prompt: Tensor, answer: Tensor) -> Tensor:
        """Embeddings ``(B, P + A, C)`` with the video's tokens, if there is one, put in their places."""
        ids = torch.cat([prompt, answer], dim=1)
        x = F.embedding(ids, self.text.embed_tokens.weight)
        if pictures is None:
            return x
        places = (ids == self.model.config.video_token_id).unsqueeze(-1)
        return x.masked_scatter(places, self.video(pictures).to(x.dtype))

    def hidden(self, x: Tensor, kept: int) -> Tensor:
        """Normalized last hidden states ``(B, kept, C)`` of the last ``kept`` positions of ``(B, N, C)``."""
        length = x.shape[1]
        cos, sin = self.text_tables(length)
        mask = torch.full((length, length), float("-inf"), dtype=self.dtype).triu(1)
        *first, last = self.text.layers
        for layer in first:
            x = self.text_layer(layer, x, cos, sin, mask)
        return rms_norm(self.text.norm, self.last_layer(last, x, cos, sin, mask[-kept:]))

    def text_tables(self, length: int) -> tuple[Tensor, Tensor]:
        """Rotary tables ``(length, head)`` in the model's type."""
        config = self.text.config
        head = config.hidden_size // config.num_attention_heads
        cos, sin = text_rope(1024, head, config.rope_parameters["rope_theta"])
        return cos[:length].to(self.dtype), sin[:length].to(self.dtype)

    def answer_logits(self, pictures: Tensor | None, prompt: Tensor, answer: Tensor) -> Tensor:
        """``(B, A, vocabulary)``: position ``i`` predicts ``answer[:, i]``."""
        x = self.embed(pictures, prompt, answer[:, :-1])
        return F.linear(self.hidden(x, answer.shape[1]), self.text.embed_tokens.weight)

    def loss(self, pictures: Tensor | None, prompt: Tensor, answer: Tensor, lengths: Tensor) -> Tensor:
        """Mean cross-entropy over the answers' own tokens; ``lengths`` ``(B,)`` tells padding apart."""
        logits = self.answer_logits(pictures, prompt, answer).float()
        targets = answer.masked_fill(torch.arange(answer.shape[1]) >= lengths[:, None], -100)
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=-100)


class FastForward(LanguageForward):
    """The pass over a ``VideoLlama3ForConditionalGeneration``; its pictures are the patches of its processor."""

    @staticmethod
    def parts(model: nn.Module) -> tuple[nn.Module, nn.Module, nn.Module]:
        return model.model.vision_model, model.model.projector, model.model.language_model

    @staticmethod
    def pictures(frames: Tensor) -> Tensor:
        return patchify(frames)

    @staticmethod
    def rows(frames: Tensor) -> dict[str, Sequence[int]]:
        return {"patches": [frames.shape[1] * PATCHES_PER_FRAME] * len(frames)}

    def patch_features(self, pictures: Tensor) -> Tensor:
        """``(F, 48, 192)`` patches to ``(F, 48, 128)`` features after the tower's last norm."""
        convolution = self.vision.embeddings.patch_embedding
        config = self.vision.config
        x = F.linear(pictures.to(self.dtype), convolution.weight.flatten(1), convolution.bias)
        head = config.hidden_size // config.num_attention_heads
        cos, sin = (t.to(self.dtype) for t in vision_rope(head, config.rope_parameters["rope_theta"]))
        for layer in self.vision.encoder.layers:
            x = self.vision_layer(layer, x, cos, sin)
        return self.vision.post_layernorm(x)

    def merge(self, features: Tensor) -> Tensor:
        """``(F, 48, 128)`` to ``(F, 12, 256)``: 2x2 means (what bilinear halving is), then the projector."""
        merged = features.view(
            -1, TOKENS_PER_FRAME, PATCHES_PER_FRAME // TOKENS_PER_FRAME, features.shape[-1]
        )
        return self.projector(merged.mean(2))

    def video(self, pictures: Tensor) -> Tensor:
        return self.merge(self.patch_features(pictures))

    def cells(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        features = self.patch_features(pictures)
        return features, self.merge(features)
