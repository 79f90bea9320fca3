"""The mixture of experts beside one frozen layer.

    y = W x + c_γ · s · Σ_k g_k(v) · B_k A_k x

The K experts of a layer are one LoRA of rank R = K·r whose intermediate is scaled block-wise by the gate, so
a pass costs one pair of products per layer, not K:

    h = x A[slot]ᵀ            A: (S, R, in), stacked over the S adapters that can be resident
    h = h ⊙ w[video]          w: (V, R) = c_γ · s · g
    y = base(x) + h B[slot]   B: (S, R, out)

In a batch of several adapters every video takes its own slot of the stack. Linear, Conv2d and Conv3d are
supported. A convolution whose kernel covers its whole input (a patch embedding) is the same pair of products
on the flattened patch; any other convolution takes A as a convolution of the base's geometry and B as a 1×1.
The base module is never touched: the experts add to its output from a forward hook.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from milora.config import GroupConfig, GroupName
from milora.errors import RoutingError, StateMismatch
from milora.gate import folded, logits_by_slot, pool, top_k
from milora.geometry import ConvGeometry
from milora.routing import Layout, Routing, Rows
from milora.state import LayerState

#: Standard deviation of a fresh gate's logits on standardized input: gates start within a few percent of 1/K.
#: While training, the gate reads z / √in, so that a step of an adaptive optimizer moves a wide layer's
#: logits no more than a narrow one's; the factor is folded into G on export.
INITIAL_LOGIT_STD = 0.1


class MiloraLayer(nn.Module):
    """The experts of one layer, for ``slots`` adapters.

    Parameters are stacked over slots, slot 1 first: A (S, R, in), B (S, R, out), that is B of the equation
    transposed, G (S, K, in) in float32. ``in`` is C·prod(kernel) for a convolution. Buffers: b (S, K), the
    gate's offset; spread (S, K, R), which holds s where rank row belongs to expert k; inverse_temperature
    (S,); top_k (S,), K where all experts speak. ``a`` () is the layer's own fusion scalar, if it has one.
    A and B may be views into an `ExpertStack`.

    Raises:
        UnsupportedLayer: the base is not an ungrouped, zero-padded Linear, Conv2d or Conv3d.
    """

    def __init__(
        self,
        name: str,
        base: nn.Module,
        group: GroupName,
        config: GroupConfig,
        *,
        index: int,
        slots: int,
        rows: Rows | None = None,
        gate_input_gradient: bool,
        dtype: torch.dtype | None,
        own_fusion: bool = False,
    ) -> None:
        super().__init__()
        self.name, self.group, self.index, self.slots, self.rows = name, group, index, slots, rows
        self.experts, self.rank_total, self.dropout = config.experts, config.rank_total, config.dropout
        self.gate_input_gradient = gate_input_gradient
        self.conv = ConvGeometry.of(name, base)
        self.base_kind = type(base).__name__
        weight = base.weight
        self.fan_in, self.fan_out = weight[0].numel(), weight.shape[0]
        kind = {"device": weight.device, "dtype": dtype or weight.dtype}
        self.A = nn.Parameter(torch.zeros(slots, self.rank_total, self.fan_in, **kind))
        self.B = nn.Parameter(torch.zeros(slots, self.rank_total, self.fan_out, **kind))
        self.G = nn.Parameter(torch.zeros(slots, self.experts, self.fan_in, device=weight.device))
        spread = torch.zeros(slots, self.experts, self.rank_total, device=weight.device)
        self.register_buffer("b", torch.zeros(slots, self.experts, device=weight.device))
        self.register_buffer("spread", spread)
        self.register_buffer("inverse_temperature", torch.ones(slots, device=weight.device))
        self.register_buffer("top_k", torch.full((slots,), self.experts, device=weight.device))
        self.register_parameter(
            "a", nn.Parameter(torch.zeros((), device=weight.device)) if own_fusion else None
        )
        self.register_buffer("mean", None)
        self.register_buffer("inverse_std", None)
        #: Per slot the group of its adapter here, None where the adapter leaves this layer alone.
        self.config_of: list[GroupConfig | None] = [None] * slots
        #: Called with (index, z) while the gate's input is being calibrated.
        self.observer: Callable[[int, Tensor], None] | None = None

    def start(self, slot: int, config: GroupConfig, generator: torch.Generator) -> None:
        """Draw a fresh adapter into a slot: A uniform as in LoRA, B zero, G small."""
        bound = 1.0 / math.sqrt(self.fan_in)
        with torch.no_grad():
            A = torch.empty(config.rank_total, self.fan_in).uniform_(-bound, bound, generator=generator)
            G = torch.randn(config.experts, self.fan_in, generator=generator) * (INITIAL_LOGIT_STD * bound)
            self.standardize(torch.zeros(self.fan_in), torch.ones(self.fan_in))
            B, b = torch.zeros(config.rank_total, self.fan_out), torch.zeros(config.experts)
            self.write(slot, config, A, B, G, b)

    def standardize(self, mean: Tensor, std: Tensor) -> None:
        """Let the gate read (z − mean) / (std·√in) from now on; for layers with one slot, which train."""
        self.mean = mean.to(self.G)
        self.inverse_std = (1.0 / (std * math.sqrt(self.fan_in))).to(self.G)

    @torch.no_grad()
    def write(self, slot: int, config: GroupConfig, A: Tensor, B: Tensor, G: Tensor, b: Tensor) -> None:
        """Put one adapter's tensors into a slot: A (R', in), B (R', out), G (K', in), b (K',).

        K' ≤ K and R' ≤ R. Missing experts get an offset of −inf, so that their gate is exactly zero.
        """
        s, rank, experts = slot - 1, config.rank_total, config.experts
        _fill(self.A[s], A)
        _fill(self.B[s], B)
        if self.mean is not None:
            self.standardize(torch.zeros_like(self.mean), torch.ones_like(self.mean))
            G = G.to(self.G) / self.inverse_std
        _fill(self.G[s], G)
        self.b[s, :experts].copy_(
            b, non_blocking=True
        )  # first: a row of nothing but −inf would make gates NaN
        self.b[s, experts:] = -torch.inf
        if not _same_scales(self.config_of[s], config):
            rows = torch.arange(rank, device=self.spread.device)
            self.spread[s].zero_()
            self.spread[s, rows // config.rank, rows] = config.scale
            self.inverse_temperature[s] = 1.0 / config.temperature
            self.top_k[s] = config.top_k or self.experts
        self.config_of[s] = config

    @torch.no_grad()
    def read(self, slot: int) -> LayerState | None:
        """A copy of a slot's adapter, its standardization folded in; ``None`` where it has none here."""
        config = self.config_of[slot - 1]
        if config is None:
            return None
        rank, experts, s = config.rank_total, config.experts, slot - 1
        A = self.A[s, :rank].detach().clone()
        B = self.B[s, :rank].detach().t().contiguous()
        G, b = self.G[s, :experts].detach().clone(), self.b[s, :experts].clone()
        if self.mean is not None:
            G, b = folded(G, b, self.mean, self.inverse_std)
        if self.a is not None:
            B = B * self._own_coefficient()
        if self.conv is not None:
            A, B = self.conv.kernel_of(A), self.conv.pointwise(B)
        return LayerState(A, B, G, b)

    def check(self, state: LayerState, group: GroupName, config: GroupConfig) -> None:
        """Raise `StateMismatch` unless an adapter's tensors fit this layer and its slots."""
        want_A = self.conv.kernel_shape(config.rank_total) if self.conv else (config.rank_total, self.fan_in)
        want_B = (self.fan_out, config.rank_total) + ((1,) * len(self.conv.kernel) if self.conv else ())
        if group != self.group:
            raise StateMismatch(f"{self.name} is {self.group} here and {group} in the adapter")
        if tuple(state.A.shape) != want_A or tuple(state.B.shape) != want_B:
            found = f"A {tuple(state.A.shape)}, B {tuple(state.B.shape)}"
            raise StateMismatch(f"{self.name}: {found} do not fit; expected A {want_A}, B {want_B}")
        if config.rank_total > self.rank_total or config.experts > self.experts:
            room = f"{self.experts} experts, rank {self.rank_total} in all"
            raise StateMismatch(f"{self.name}: {config.experts} experts of rank {config.rank} exceed {room}")

    @torch.no_grad()
    def clear(self, slot: int) -> None:
        """Empty a slot: its adapter then adds nothing here."""
        s = slot - 1
        for stack in (self.A, self.B, self.G, self.b, self.spread):
            stack[s].zero_()
        self.inverse_temperature[s] = 1.0
        self.config_of[s] = None

    def adapt(self, x: Tensor, out: Tensor, routing: Routing) -> Tensor:
        """base output → base output + the experts' contribution, same shape."""
        if all(self.config_of[slot - 1] is None for slot in routing.present):
            return out
        if self.conv is not None and not self.conv.whole_input(x):
            return self._adapt_positions(x, out, routing, self.conv)
        rows = x.flatten(1) if self.conv is not None else x.reshape(-1, self.fan_in)  # (N, in)
        leading = x.shape[:1] if self.conv is not None else x.shape[:-1]
        layout = self._layout(rows.shape[0], tuple(leading), routing)
        w = self._row_weights(x, rows, layout, routing)
        flat = out.reshape(-1, self.fan_out)
        return self._add(self._dropped(rows), flat, layout, w, routing).view_as(out)

    def _layout(self, rows: int, leading: tuple[int, ...], routing: Routing) -> Layout:
        return routing.layout(self.name, rows, leading, self.rows, settled=routing.settled(self.index))

    def _add(self, rows: Tensor, flat: Tensor, layout: Layout, w: Tensor, routing: Routing) -> Tensor:
        """flat (N, out) + every video's rows (N, in) through its own adapter, weighed by w (V, R)."""
        if routing.slot_index is None:
            A, B = self._one(routing)
            h = layout.spread(F.linear(rows, A.to(rows.dtype)), w.to(rows.dtype))  # (N, R)
            return torch.addmm(flat, h.to(flat.dtype), B.to(flat.dtype))
        w = w.to(rows.dtype)
        if layout.per_video is not None:
            A, B = self.A[routing.slot_index].to(rows.dtype), self.B[routing.slot_index]
            by_video = (layout.videos, layout.per_video, -1)
            h = torch.bmm(rows.view(by_video), A.transpose(1, 2)) * w.unsqueeze(1)  # (V, n, R)
            return torch.baddbmm(flat.view(by_video), h.to(flat.dtype), B.to(flat.dtype)).view_as(flat)
        parts = zip(rows.split(layout.lengths), flat.split(layout.lengths), routing.slots, w, strict=True)
        return torch.cat([self._add_to_one(x, y, slot, v) for x, y, slot, v in parts])

    def _add_to_one(self, x: Tensor, y: Tensor, slot: int, w: Tensor) -> Tensor:
        """The same for the rows of one video: x (n, in), y (n, out), w (R,)."""
        if slot == 0:
            return y
        h = F.linear(x, self.A[slot - 1].to(x.dtype)) * w  # (n, R)
        return torch.addmm(y, h.to(y.dtype), self.B[slot - 1].to(y.dtype))

    def _one(self, routing: Routing) -> tuple[Tensor, Tensor]:
        """A (R, in) and B (R, out) of the one adapter of this pass."""
        s = routing.present[0] - 1
        return self.A[s], self.B[s]

    def _adapt_positions(self, x: Tensor, out: Tensor, routing: Routing, conv: ConvGeometry) -> Tensor:
        """A convolution with several output positions per row: x (N, C, *space) → (N, out, *space')."""
        layout = self._layout(x.shape[0], tuple(x.shape[:1]), routing)
        w = self._row_weights(x, conv.mean_patch(x), layout, routing)
        slots = routing.slots if routing.slot_index is not None else routing.slots[:1]
        lengths = layout.lengths if routing.slot_index is not None else (x.shape[0],)
        weights = w.repeat_interleave(torch.tensor(layout.lengths, device=w.device), 0)  # (N, R)
        parts = zip(x.split(lengths), out.split(lengths), slots, weights.split(lengths), strict=True)
        return torch.cat([self._convolved(conv, *part) for part in parts])

    def _convolved(self, conv: ConvGeometry, x: Tensor, y: Tensor, slot: int, w: Tensor) -> Tensor:
        """y (n, out, *space') + one adapter's convolution of x (n, C, *space), weighed by w (n, R)."""
        if slot == 0:
            return y
        h = conv.convolve(self._dropped(x), self.A[slot - 1].to(x.dtype))  # (n, R, *space')
        h = h.flatten(2).transpose(1, 2) * w.to(h.dtype).unsqueeze(1)  # (n, L, R)
        return y + (h @ self.B[slot - 1].to(h.dtype)).transpose(1, 2).reshape(y.shape)

    def _dropped(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.dropout) if self.training and self.dropout else x

    def _row_weights(self, x: Tensor, rows: Tensor, layout: Layout, routing: Routing) -> Tensor:
        """w (V, R) of this layer: kept in the routing when the gates are settled, else computed."""
        if not routing.settled(self.index):
            gates = self._gates(x, rows, layout, routing)  # (V, K)
            routing.gates[self.index] = gates
            w = self._weights(gates, routing)
            if routing.keep:
                routing.row_weights[self.index] = w
            return w
        if self.index not in routing.row_weights:
            if self.index in routing.missing:
                raise RoutingError(f"{self.name}: a request has no gate for it to reuse")
            gates = routing.given[self.index, :, : self.experts]
            routing.row_weights[self.index] = self._weights(gates, routing)
        return routing.row_weights[self.index]

    def _gates(self, x: Tensor, rows: Tensor, layout: Layout, routing: Routing) -> Tensor:
        """g (V, K), softmax over each video's own experts."""
        z = routing.pooled(x)
        if z is None:
            z = pool(rows if self.gate_input_gradient else rows.detach(), layout)  # (V, in)
            routing.remember_pooled(x, z)
        if self.observer is not None:
            self.observer(self.index, z)
        if self.mean is not None:
            z = (z - self.mean) * self.inverse_std
        if routing.slot_index is not None:
            logits = logits_by_slot(z, self.G, self.b, routing.slot_index)
            logits = logits * self.inverse_temperature[routing.slot_index].unsqueeze(-1)
            kept = self.top_k[routing.slot_index]
        else:
            s = routing.present[0] - 1
            logits = F.linear(z, self.G[s], self.b[s]) * self.inverse_temperature[s]
            kept = self.top_k[s : s + 1]
        if any(self._sparse(slot) for slot in routing.present):
            logits = top_k(logits, kept)
        return torch.softmax(logits, -1)

    def _sparse(self, slot: int) -> bool:
        """Whether a slot's adapter lets only some of its experts speak."""
        config = self.config_of[slot - 1]
        return config is not None and config.top_k > 0

    def _own_coefficient(self) -> Tensor:
        """c_γ of a layer that has an α of its own: ()."""
        temporal = 2.0 * torch.sigmoid(self.a)
        return temporal if self.group == "temporal" else 2.0 - temporal

    def _weights(self, gates: Tensor, routing: Routing) -> Tensor:
        """w = c_γ · s · g_k on every rank row of expert k, zero without an adapter: (V, K) → (V, R)."""
        c = None if routing.coefficients is None else routing.coefficients[self.group]  # (S,)
        if self.a is not None:
            c = self._own_coefficient().expand(self.slots)
        if routing.slot_index is None:
            s = routing.present[0] - 1
            return (gates if c is None else gates * c[s]) @ self.spread[s]
        scaled = gates if c is None else gates * c[routing.slot_index].unsqueeze(1)  # (V, K)
        w = torch.bmm(scaled.unsqueeze(1), self.spread[routing.slot_index]).squeeze(1)
        return torch.where(
            routing.adapted, w, 0.0
        )  # not by a product: whatever a free slot holds is nobody's

    def rank_weights(self, slot: int, gates: Tensor, coefficient: Tensor | None) -> Tensor:
        """w (R,) of one request with gates (K_max,) in a slot, for decode steps; zero where it has no adapter here."""
        scaled = gates[: self.experts] if coefficient is None else gates[: self.experts] * coefficient
        return scaled @ self.spread[slot - 1]


def _fill(stack: Tensor, values: Tensor) -> None:
    """Copy values (n, …) into the first rows of stack (m, …) and zeros into the rest."""
    stack[: len(values)].copy_(values, non_blocking=True)
    if len(values) < len(stack):
        stack[len(values) :].zero_()


def _same_scales(before: GroupConfig | None, config: GroupConfig) -> bool:
    """Whether a slot's scales and temperature serve the next adapter too: most of a store's have the same."""
    return before is not None and _scales(before) == _scales(config)


def _scales(config: GroupConfig) -> tuple[float, ...]:
    return config.experts, config.rank, config.lora_alpha, config.temperature, config.top_k
