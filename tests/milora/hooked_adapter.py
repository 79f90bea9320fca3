"""An adapter applied to a stock model by plain hooks, one video at a time: what experts must equal.

Written from the equations alone, a loop over experts and no code of the package but the adapter's own tensors.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from milora import AdapterState


@contextmanager
def hooked(model: nn.Module, state: AdapterState) -> Iterator[dict[str, Tensor]]:
    """y = W x + c s Σ_k g_k B_k A_k x in every layer of the adapter; yields each layer's gate, (K,).

    The batch is one video and its prompt without padding, so that a layer's first input is all that video's; gates
    are taken there and kept.
    """
    gates: dict[str, Tensor] = {}

    def attach(name: str, module: nn.Module) -> torch.utils.hooks.RemovableHandle:
        return module.register_forward_hook(
            lambda module, args, out: out + _experts(name, module, args[0], state, gates)
        )

    handles = [attach(name, model.get_submodule(name)) for name in state.layers]
    try:
        yield gates
    finally:
        for handle in handles:
            handle.remove()


def _experts(
    name: str, module: nn.Module, x: Tensor, state: AdapterState, gates: dict[str, Tensor]
) -> Tensor:
    layer, group = state.layers[name], state.groups[state.group_of[name]]
    convolve = {nn.Conv2d: F.conv2d, nn.Conv3d: F.conv3d}.get(type(module))
    if name not in gates:
        z = x.flatten(0, -2).mean(0) if convolve is None else _mean_patch(module, x, convolve)
        gates[name] = torch.softmax((layer.G @ z + layer.b) / group.temperature, 0)
    total = 0.0
    for k in range(group.experts):
        ranks = slice(k * group.rank, (k + 1) * group.rank)
        A, B = layer.A[ranks], layer.B[:, ranks]
        low = x @ A.T if convolve is None else convolve(x, A, None, module.stride, module.padding)
        own = low @ B.T if convolve is None else convolve(low, B)
        total = total + gates[name][k] * own
    return state.coefficient(state.group_of[name]) * group.scale * total


def _mean_patch(module: nn.Module, x: Tensor, convolve) -> Tensor:
    """The mean of what the kernel sees over all of its positions: the identity as a convolution."""
    size = module.weight[0].numel()
    identity = torch.eye(size).view(size, *module.weight.shape[1:])
    seen = convolve(x, identity, None, module.stride, module.padding)  # (N, size, *positions)
    return seen.transpose(0, 1).flatten(1).mean(1)
