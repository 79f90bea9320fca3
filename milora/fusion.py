"""The learned balance between the temporal and the spatial experts.

    α = sigmoid(a),   c_temporal = 2 α,   c_spatial = 2 (1 − α)

(MiLoRA-ViSum, arXiv 2503.06064, the fusion of both experts' outputs, written so that both coefficients are 1
at the start, a = 0.) An adapter that has only one group has nothing to balance: its coefficient is 1 and its
a is neither used nor trained.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from milora.config import GroupName


def coefficient(group: GroupName, a: float, *, fused: bool) -> float:
    """c_γ of one adapter as a plain number; ``fused`` says whether it has both groups."""
    if not fused:
        return 1.0
    alpha = 1.0 / (1.0 + math.exp(-a))
    return 2.0 * alpha if group == "temporal" else 2.0 * (1.0 - alpha)


class Fusion(nn.Module):
    """One scalar a per slot, (slots,), and which slots have both groups; a stays where it is unless ``learned``."""

    def __init__(self, slots: int, *, fused: bool, learned: bool = True, device: torch.device) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.zeros(slots, device=device), requires_grad=fused and learned)
        self.fused = [fused] * slots

    def coefficients(self) -> dict[GroupName, Tensor] | None:
        """c of each group for every slot, (slots,) each; ``None`` when every coefficient is 1."""
        if not any(self.fused):
            return None
        temporal = 2.0 * torch.sigmoid(self.a)
        if not all(self.fused):
            fused = torch.tensor(self.fused, device=self.a.device)
            temporal = torch.where(fused, temporal, torch.ones_like(temporal))
        return {"temporal": temporal, "spatial": 2.0 - temporal}
