"""An adapter worked out from its files alone, over stock transformers: no code of the service or of `milora`.

Slow and plain on purpose: one request, a loop over the experts, as the equation is written.

    y = W x + c · (lora_alpha / r) · Σ_k g_k · B_k A_k x,   g = softmax((G mean(x) + b) / τ)
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import load_file as load_numpy
from safetensors.torch import load_file as load_torch
from torch import Tensor, nn

Numbers = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True)
class ByHand:
    """The adapter of a folder on a stock model. `inputs` holds what every adapted layer read first: (N, in)."""

    folder: Path
    manifest: dict[str, Any]
    gate_file: dict[str, np.ndarray]
    experts: dict[str, Tensor]
    inputs: dict[str, Tensor] = field(default_factory=dict)

    @classmethod
    def of(cls, folder: Path) -> ByHand:
        """Read the files."""
        manifest = json.loads((folder / "manifest.json").read_text())
        gates = load_numpy(folder / "gates.safetensors")
        return cls(folder, manifest, gates, load_torch(folder / "adapter_model.safetensors"))

    def gate(self, name: str) -> Numbers:
        """g (K,) of a layer, in double precision, from its first input: the video and prompt, nothing generated."""
        z = self.inputs[name].double().mean(0).numpy()
        G, b = (self.gate_file[f"{name}.{part}"].astype(np.float64) for part in "Gb")
        logits = (G @ z + b) / self._group_of(name)["temperature"]
        weights = np.exp(logits - logits.max())
        return weights / weights.sum()

    def attach(self, model: nn.Module) -> None:
        """Let every adapted layer of the model answer with its experts."""
        for group, facts in self.manifest["groups"].items():
            for name in facts["targets"]:
                scale = self._coefficient(group) * facts["lora_alpha"] / facts["rank"]
                model.get_submodule(name).register_forward_hook(self._hook(name, facts["rank"], scale))

    def _hook(self, name: str, rank: int, scale: float) -> Any:
        A = self.experts[f"base_model.model.{name}.lora_A.weight"].float().flatten(1)  # (K·r, in)
        B = self.experts[f"base_model.model.{name}.lora_B.weight"].float().flatten(1)  # (out, K·r)

        def add_experts(module: nn.Module, args: tuple[Tensor, ...], out: Tensor) -> Tensor:
            rows = args[0].flatten(1) if args[0].dim() == 4 else args[0].reshape(-1, A.shape[1])  # (N, in)
            self.inputs.setdefault(name, rows.clone())
            added = torch.zeros(len(rows), len(B))
            for k, weight in enumerate(self.gate(name)):
                own = slice(k * rank, (k + 1) * rank)
                added += scale * float(weight) * (rows @ A[own].T @ B[:, own].T)
            return out + added.view_as(out)

        return add_experts

    def _coefficient(self, group: str) -> float:
        """c of a group: the fusion scalar balances two groups, one alone has nothing to balance."""
        if len(self.manifest["groups"]) == 1:
            return 1.0
        alpha = 1 / (1 + math.exp(-float(self.gate_file["a"].reshape(()))))
        return 2 * alpha if group == "temporal" else 2 * (1 - alpha)

    def _group_of(self, name: str) -> dict[str, Any]:
        return next(group for group in self.manifest["groups"].values() if name in group["targets"])
