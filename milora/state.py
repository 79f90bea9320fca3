"""One adapter apart from any model: plain tensors and the groups that they belong to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from milora.config import GroupConfig, GroupName
from milora.errors import StateMismatch
from milora.fusion import coefficient


@dataclass(frozen=True)
class LayerState:
    """The experts and the gate of one layer.

    A is (K·r, in) or (K·r, C, *kernel); B is (out, K·r) or (out, K·r, 1, …); G is (K, in) and b is (K,), both
    float32: the folded standardization would not survive a shorter format.
    """

    A: Tensor
    B: Tensor
    G: Tensor
    b: Tensor


@dataclass(frozen=True)
class AdapterState:
    """What training learned: groups with full target names, tensors by layer, the fusion scalar a."""

    groups: Mapping[GroupName, GroupConfig]
    layers: Mapping[str, LayerState]
    a: float = 0.0
    group_of: Mapping[str, GroupName] = field(init=False)

    def __post_init__(self) -> None:
        owner = {name: group for group, config in self.groups.items() for name in config.targets}
        object.__setattr__(self, "group_of", owner)
        unknown, missing = sorted(set(self.layers) - set(owner)), sorted(set(owner) - set(self.layers))
        if unknown or missing:
            raise StateMismatch(f"layers without a group: {unknown}; targets without tensors: {missing}")
        for name, layer in self.layers.items():
            _check_shapes(name, layer, self.groups[owner[name]])

    @property
    def fused(self) -> bool:
        """True when the adapter has both groups, so that a balances them."""
        return len(self.groups) == 2

    @property
    def fusion_alpha(self) -> float:
        """α = sigmoid(a); ½ where there is nothing to balance."""
        return coefficient("temporal", self.a, fused=True) / 2 if self.fused else 0.5

    def coefficient(self, group: GroupName) -> float:
        """c_γ of this adapter."""
        return coefficient(group, self.a, fused=self.fused)

    @property
    def bytes(self) -> int:
        """Memory of all tensors."""
        parts = (part for layer in self.layers.values() for part in (layer.A, layer.B, layer.G, layer.b))
        return sum(part.nbytes for part in parts)

    def staged(self, dtype: torch.dtype, *, pinned: bool) -> AdapterState:
        """The same adapter laid out as slots hold it, so that loading it is plain copying.

        A and B in ``dtype``, B with its ranks outermost in memory; ``pinned`` for copies to a GPU.
        """

        def laid_out(tensor: Tensor) -> Tensor:
            return tensor.pin_memory() if pinned else tensor.contiguous()

        def rank_first(B: Tensor) -> Tensor:  # (out, R, …) with the strides of (R, out, …)
            return laid_out(B.to(dtype).transpose(0, 1).contiguous()).transpose(0, 1)

        layers = {
            name: LayerState(
                laid_out(layer.A.to(dtype)),
                rank_first(layer.B),
                laid_out(layer.G.float()),
                laid_out(layer.b.float()),
            )
            for name, layer in self.layers.items()
        }
        return AdapterState(self.groups, layers, self.a)

    def parameters(self) -> int:
        """How many numbers were trained: A, B, G and, with both groups, a."""
        tensors = sum(layer.A.numel() + layer.B.numel() + layer.G.numel() for layer in self.layers.values())
        return tensors + int(self.fused)


def _check_shapes(name: str, layer: LayerState, group: GroupConfig) -> None:
    R, K = group.rank_total, group.experts
    if layer.A.dim() < 2 or layer.A.shape[0] != R:
        raise StateMismatch(f"{name}: A is {tuple(layer.A.shape)}, its first dimension must be K·r = {R}")
    fan_in = layer.A[0].numel()
    problems = []
    if layer.B.dim() < 2 or layer.B.shape[1] != R or layer.B.numel() != layer.B.shape[0] * R:
        problems.append(f"B is {tuple(layer.B.shape)}, its second dimension must be K·r = {R}")
    if tuple(layer.G.shape) != (K, fan_in):
        problems.append(f"G is {tuple(layer.G.shape)}, expected {(K, fan_in)}")
    if tuple(layer.b.shape) != (K,):
        problems.append(f"b is {tuple(layer.b.shape)}, expected {(K,)}")
    if problems:
        raise StateMismatch(f"{name}: " + "; ".join(problems))


def gate_tensors(state: AdapterState) -> dict[str, Tensor]:
    """``<layer>.G``, ``<layer>.b`` and ``a``, in float32."""
    tensors: dict[str, Tensor] = {"a": torch.tensor(state.a, dtype=torch.float32)}
    for name, layer in state.layers.items():
        tensors[f"{name}.G"] = layer.G.float().contiguous()
        tensors[f"{name}.b"] = layer.b.float().contiguous()
    return tensors
