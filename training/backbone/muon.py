"""Muon for matrices and AdamW for the rest, with fp32 masters behind a bf16 model.

Muon (Keller Jordan, 2024): the momentum of a matrix is replaced by the nearest semi-orthogonal one, found by a few
Newton-Schulz steps. Matrices of one shape are stacked and orthogonalized together.
"""

from collections import defaultdict
from dataclasses import dataclass

import torch
from torch import Tensor, nn

QUINTIC = (3.4445, -4.7750, 2.0315)  # coefficients that lift small singular values fastest


def orthogonalize(stack: Tensor, steps: int = 5) -> Tensor:
    """Nearly semi-orthogonal matrices ``(M, rows, columns)`` with the singular vectors of the given ones, in bf16."""
    a, b, c = QUINTIC
    x = stack.bfloat16()
    tall = x.shape[1] > x.shape[2]
    x = x.mT if tall else x
    x = (x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)).contiguous()
    for _ in range(steps):
        gram = torch.bmm(x, x.mT.contiguous())
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x


@dataclass
class Slot:
    """One parameter: the model's own (perhaps bf16) tensor, its fp32 master and the optimizer's memory."""

    name: str
    live: nn.Parameter
    master: Tensor
    scale: float  # multiplies the learning rate
    first: Tensor  # momentum
    second: Tensor | None  # squared gradients; None where Muon steps


class MuonAdamW:
    """Both optimizers over one model.

    Args:
        parameters: ``name -> (parameter, learning rate scale)``; matrices named in ``matrices`` are stepped by Muon,
            the weight of a convolution among them as one of (outputs, everything else).
    """

    def __init__(
        self, parameters: dict[str, tuple[nn.Parameter, float]], matrices: set[str], *, weight_decay: float
    ) -> None:
        self.weight_decay = weight_decay
        self.steps = 0
        self.slots = []
        for name, (live, scale) in parameters.items():
            master = live.detach().float().clone()
            second = None if name in matrices else torch.zeros_like(master)
            self.slots.append(Slot(name, live, master, scale, torch.zeros_like(master), second))

    @torch.no_grad()
    def step(self, muon_lr: float, adam_lr: float) -> None:
        """Apply the gradients in ``.grad`` and clear them. Parameters without a gradient stay."""
        self.steps += 1
        ready = [slot for slot in self.slots if slot.live.grad is not None]
        self._step_adam([s for s in ready if s.second is not None], adam_lr)
        by_shape = defaultdict(list)
        for slot in ready:
            if slot.second is None:
                by_shape[slot.master.shape].append(slot)
        for slots in by_shape.values():
            self._step_muon(slots, muon_lr)
        for slot in ready:
            slot.live.copy_(slot.master)
            slot.live.grad = None

    def _step_muon(self, slots: list[Slot], lr: float, momentum: float = 0.95) -> None:
        directions = []
        for slot in slots:
            grad = slot.live.grad.float()
            slot.first.mul_(momentum).add_(grad, alpha=1 - momentum)
            directions.append(grad.lerp(slot.first, momentum).flatten(1))  # Nesterov
        rows, columns = directions[0].shape
        gain = max(1.0, rows / columns) ** 0.5
        for slot, update in zip(slots, orthogonalize(torch.stack(directions)), strict=True):
            slot.master.mul_(1 - lr * slot.scale * self.weight_decay)
            slot.master.add_(update.float().reshape(slot.master.shape), alpha=-lr * slot.scale * gain)

    def _step_adam(self, slots: list[Slot], lr: float, betas: tuple[float, float] = (0.9, 0.98)) -> None:
        if not slots:
            return
        grads = [slot.live.grad.float() for slot in slots]
        first, second = [s.first for s in slots], [s.second for s in slots]
        torch._foreach_lerp_(first, grads, 1 - betas[0])
        torch._foreach_mul_(second, betas[1])
        torch._foreach_addcmul_(second, grads, grads, 1 - betas[1])
        early, late = 1 - betas[0] ** self.steps, 1 - betas[1] ** self.steps
        for slot in slots:
            spread = (slot.second / late).sqrt_().add_(1e-8)
            slot.master.addcdiv_(slot.first, spread, value=-lr * slot.scale / early)

    def state(self) -> dict[str, Tensor]:
        """Masters and memory as flat tensors, for safetensors."""
        tensors = {}
        for slot in self.slots:
            tensors[f"master/{slot.name}"] = slot.master
            tensors[f"first/{slot.name}"] = slot.first
            if slot.second is not None:
                tensors[f"second/{slot.name}"] = slot.second
        return tensors

    @torch.no_grad()
    def load_state(self, tensors: dict[str, Tensor], steps: int) -> None:
        """The counterpart of ``state``; also refreshes the model's own parameters."""
        self.steps = steps
        for slot in self.slots:
            slot.master.copy_(tensors[f"master/{slot.name}"])
            slot.first.copy_(tensors[f"first/{slot.name}"])
            if slot.second is not None:
                slot.second.copy_(tensors[f"second/{slot.name}"])
            slot.live.copy_(slot.master)
