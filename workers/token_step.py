"""One token for every request in flight: the hot path, from token ids to logits.

It is the language model of VideoLLaMA3 (Qwen2) written out for one new position a row, with the experts of any
mixture of adapters beside its linear layers. In a step nothing is asked of the device and nothing grows: shapes
depend on the number of rows B, the span T and the places of the experts alone: a step can be compiled, none is.

    B rows   T positions looked at   H hidden   D head width   Hq query heads   Hkv key-value heads   I inner width
    S adapter slots   W·m places of the rows, by slot   R ranks of a site (K·r of every adapted layer in it)
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import VideoLlama3ForConditionalGeneration

from milora import Arrangement, DecodeExperts, MiloraModel, Site
from workers.slot_cache import SlotCache

SITES = (
    ("self_attn", (("q_proj",), ("k_proj", "v_proj"))),
    ("self_attn", (("o_proj",),)),
    ("mlp", (("gate_proj",), ("up_proj",))),
    ("mlp", (("down_proj",),)),
)
"""The linear layers of one decoder layer that read the same input, in the order in which they run, in the blocks that
their experts are multiplied in."""
_STATIC_ROPE = ("default", "linear", "yarn", "llama3")


_LARGE_MATRIX = 1_000_000
"""Elements of a matrix from which oneDNN's fp32 product with a few rows is faster than MKL's, which hardly uses more
than one thread there. Below it the call itself is what costs."""

Linear = Callable[[Tensor, Tensor, Tensor | None], Tensor]


@dataclass(frozen=True)
class _Layer:
    """Weights of one decoder layer; q, k, v and gate, up stand in one matrix each."""

    attention_norm: Tensor  # (H,)
    qkv: Tensor  # ((Hq + 2 Hkv)·D, H)
    qkv_bias: Tensor | None
    o: Tensor  # (H, Hq·D)
    mlp_norm: Tensor  # (H,)
    gate_up: Tensor  # (2 I, H)
    down: Tensor  # (H, I)


def lay_out(
    model: VideoLlama3ForConditionalGeneration, experts: MiloraModel | None, rows: int
) -> DecodeExperts | None:
    """Bring weights and experts into the form that steps of at most `rows` rows read; returns the experts.

    The backbone's q, k, v and gate, up weights are laid side by side once: its modules then look into the joint
    matrices, with the same bytes. It comes before the cache, which is planned in the memory that this leaves.

    Raises:
        ValueError: the language model is none that this file writes out.
    """
    text = model.model.language_model
    _check(model.config.text_config)
    for layer in text.layers:
        _joint(layer)
    return None if experts is None else DecodeExperts(experts, _sites(text), rows)


class TokenStep:
    """A decode step of one backbone, laid out by `lay_out`, over the rows of one cache."""

    def __init__(
        self, model: VideoLlama3ForConditionalGeneration, cache: SlotCache, experts: DecodeExperts | None
    ) -> None:
        text, config = model.model.language_model, model.config.text_config
        self.cache = cache
        self._act = text.layers[0].mlp.act_fn
        self._eps = config.rms_norm_eps
        self._embedding, self._norm, self._head = (
            text.embed_tokens.weight,
            text.norm.weight,
            model.lm_head.weight,
        )
        self._layers = [_joint(layer) for layer in text.layers]
        self._linear = _linear_for(self._layers[0].gate_up)
        self._q_width = config.num_attention_heads * cache.head_width
        self._kv_heads = cache.heads
        self._groups = config.num_attention_heads // cache.heads
        positions = torch.arange(cache.length, device=model.device)
        self._columns = positions
        self._row_starts = torch.arange(cache.rows, device=model.device) * cache.length
        self._cos, self._sin = _rotations(text, positions, self._embedding)
        self.experts = experts
        self._no_experts: Arrangement = (None,) * (len(SITES) * len(self._layers))

    @torch.no_grad()
    def __call__(self, ids: Tensor, positions: Tensor, span: int, arranged: Arrangement | None) -> Tensor:
        """The logits (B, V) after one more token a row.

        Args:
            ids: (B,) the newest token of every row.
            positions: (B,) where in its row each of them stands; keys and values are written there.
            span: T, more than any of the positions.
            arranged: the experts of every site, four a layer, ``None`` when no row has an adapter.
        """
        rows, width, kv_heads = len(ids), self.cache.head_width, self._kv_heads
        x = F.embedding(ids, self._embedding)  # (B, H)
        cos, sin = self._cos[positions].unsqueeze(1), self._sin[positions].unsqueeze(1)  # (B, 1, D)
        unseen = self._columns[:span] > positions.unsqueeze(1)  # (B, T)
        mask = torch.zeros(rows, 1, 1, span, dtype=x.dtype, device=x.device)
        mask.masked_fill_(unseen[:, None, None], -torch.inf)
        slots = self._row_starts[:rows] + positions  # (B,) places in the flat cache

        experts, linear = arranged or self._no_experts, self._linear
        for number, layer in enumerate(self._layers):
            h = F.rms_norm(x, x.shape[1:], layer.attention_norm, self._eps)  # (B, H)
            qkv = linear(h, layer.qkv, layer.qkv_bias)  # (B, (Hq + 2 Hkv)·D)
            if experts[4 * number] is not None:
                experts[4 * number].add(h, qkv)
            heads = qkv.view(rows, -1, width)  # (B, Hq + 2 Hkv, D)
            turned, value = heads[:, :-kv_heads], heads[:, -kv_heads:]
            turned = torch.addcmul(turned * cos, turned.roll(width // 2, -1), sin)  # (B, Hq + Hkv, D)
            query = turned[:, :-kv_heads].view(rows, kv_heads, self._groups, width)
            keys, values = self.cache.write(number, slots, turned[:, -kv_heads:], value, rows, span)
            seen = F.scaled_dot_product_attention(query, keys, values, attn_mask=mask)
            seen = seen.reshape(rows, self._q_width)  # (B, Hq·D)
            x = x + linear(seen, layer.o, None)
            if experts[4 * number + 1] is not None:
                experts[4 * number + 1].add(seen, x)

            h = F.rms_norm(x, x.shape[1:], layer.mlp_norm, self._eps)
            gate_up = linear(h, layer.gate_up, None)  # (B, 2 I)
            if experts[4 * number + 2] is not None:
                experts[4 * number + 2].add(h, gate_up)
            gate, up = gate_up.chunk(2, dim=1)
            inner = self._act(gate) * up  # (B, I)
            x = x + linear(inner, layer.down, None)
            if experts[4 * number + 3] is not None:
                experts[4 * number + 3].add(inner, x)

        return linear(F.rms_norm(x, x.shape[1:], self._norm, self._eps), self._head, None)


def _linear_for(largest: Tensor) -> Linear:
    """x (B, in), weight (out, in), bias (out,) or None → (B, out), by the faster of torch's ways for such matrices."""
    fp32_on_cpu = largest.device.type == "cpu" and largest.dtype == torch.float32
    if fp32_on_cpu and largest.numel() >= _LARGE_MATRIX and torch.backends.mkldnn.is_available():
        return _onednn_linear
    return F.linear


def _onednn_linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """The operation that torch's own compiler puts in the place of `F.linear` on the CPU."""
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")


def _sites(text: nn.Module) -> list[Site]:
    """Every site of the language model, four a layer, with the widths of its outputs."""
    return [
        tuple(
            tuple(
                (
                    f"model.language_model.layers.{number}.{part}.{name}",
                    layer.get_submodule(f"{part}.{name}").out_features,
                )
                for name in block
            )
            for block in blocks
        )
        for number, layer in enumerate(text.layers)
        for part, blocks in SITES
    ]


def _check(config: object) -> None:
    """Raise ValueError unless the language model is the one written out above."""
    kind, rope = config.model_type, config.rope_parameters["rope_type"]
    if kind != "qwen2" or "sliding_attention" in config.layer_types or rope not in _STATIC_ROPE:
        raise ValueError(
            f"no decode step for a {kind} with {set(config.layer_types)} and {rope!r} rotary positions"
        )


def _joint(layer: nn.Module) -> _Layer:
    attention, mlp = layer.self_attn, layer.mlp
    qkv = [attention.q_proj, attention.k_proj, attention.v_proj]
    return _Layer(
        attention_norm=layer.input_layernorm.weight,
        qkv=_side_by_side(qkv),
        qkv_bias=None if qkv[0].bias is None else torch.cat([module.bias for module in qkv]),
        o=attention.o_proj.weight,
        mlp_norm=layer.post_attention_layernorm.weight,
        gate_up=_side_by_side([mlp.gate_proj, mlp.up_proj]),
        down=mlp.down_proj.weight,
    )


@torch.no_grad()
def _side_by_side(modules: list[nn.Module]) -> Tensor:
    """One matrix of the modules' weights, which become views into it; one that was made before is used again."""
    weights = [module.weight for module in modules]
    rows = [weight.shape[0] for weight in weights]
    joint = weights[0].detach()
    whole = joint.as_strided((sum(rows), joint.shape[1]), joint.stride()) if _adjacent(weights) else None
    if whole is None:
        whole = torch.cat([weight.detach() for weight in weights])
        for weight, part in zip(weights, whole.split(rows), strict=True):
            weight.data = part
    return whole


def _adjacent(weights: list[Tensor]) -> bool:
    """Whether the matrices follow each other in one piece of memory."""
    end = weights[0].data_ptr()
    storage = weights[0].untyped_storage().data_ptr()
    for weight in weights:
        if weight.data_ptr() != end or weight.untyped_storage().data_ptr() != storage:
            return False
        end += weight.numel() * weight.element_size()
    return True


@torch.no_grad()
def _rotations(text: nn.Module, positions: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
    """cos and sin (L, D) of every position, the sine signed so that x cos + roll(x) sin rotates the halves."""
    cos, sin = text.rotary_emb(like, positions.unsqueeze(0))
    half = sin.shape[-1] // 2
    signs = torch.ones_like(sin[0, 0])
    signs[:half] = -1.0
    return cos[0], sin[0] * signs
