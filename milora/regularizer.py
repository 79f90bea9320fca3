"""The two penalties of the composite loss L = L_sum + λ·frobenius + μ·balance."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from milora.model import MiloraModel
from milora.routing import Routing


def frobenius(handle: MiloraModel) -> Tensor:
    """Σ over layers and experts of ‖A_k‖_F² + ‖B_k‖_F²: a scalar."""
    flat = [p.flatten() for layer in handle.layers for p in (layer.A, layer.B)]
    return torch.cat(flat).float().square().sum()


def balance(routing: Routing) -> Tensor:
    """How far the batch's mean gate is from uniform: the mean over layers of log K − H(mean_v g(v)), ≥ 0.

    Zero when the experts are used alike over the batch, however decided each single video's gate is; log K
    when one expert takes everything. Layers are weighed alike. ``routing`` is the pass just run, its gates
    still on the graph.

    Raises:
        ValueError: the pass has computed no gates.
    """
    by_experts: dict[int, list[Tensor]] = {}
    for gates in routing.gates.values():
        by_experts.setdefault(gates.shape[1], []).append(gates)
    layers = sum(len(group) for group in by_experts.values())
    if layers == 0:
        raise ValueError("the pass computed no gates; call balance after the model's forward")
    excess = []
    for experts, group in by_experts.items():
        mean_gate = torch.stack(group).mean(1)  # (layers, K)
        entropy = -(mean_gate * mean_gate.clamp_min(1e-12).log()).sum(1)
        excess.append((math.log(experts) - entropy).sum())
    return torch.stack(excess).sum() / layers
