"""An adapter as a PEFT LoRA, and back.

Plain `peft` scales a LoRA of rank R = K·r by ``lora_alpha / R``. Writing c_γ·lora_alpha as the layer's alpha
gives c_γ·(lora_alpha / r)·(1 / K): MiLoRA with every gate at 1/K and α at its learned value. A and B stay as
trained.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from milora.config import GroupConfig, GroupName
from milora.errors import StateMismatch
from milora.state import AdapterState, LayerState, gate_tensors

_PREFIX = "base_model.model."
_A, _B = ".lora_A.weight", ".lora_B.weight"


def to_peft(
    state: AdapterState, base_model_name: str | None = None
) -> tuple[dict[str, Any], dict[str, Tensor], dict[str, Tensor]]:
    """(adapter_config, adapter_model tensors, gate tensors); keep the gates in float32 on disk."""
    ranks: dict[str, int] = {}
    alphas: dict[str, float] = {}
    for group, config in state.groups.items():
        for name in config.targets:
            ranks[name] = config.rank_total
            alphas[name] = state.coefficient(group) * config.lora_alpha
    first = next(iter(state.groups.values()))
    config_dict: dict[str, Any] = {
        "peft_type": "LORA",
        "task_type": None,
        "base_model_name_or_path": base_model_name,
        "inference_mode": True,
        "bias": "none",
        "lora_dropout": 0.0,
        "fan_in_fan_out": False,
        "use_rslora": False,
        "use_dora": False,
        "r": first.rank_total,
        "lora_alpha": first.lora_alpha,
        "target_modules": sorted(state.layers),
        "rank_pattern": ranks,
        "alpha_pattern": alphas,
    }
    tensors: dict[str, Tensor] = {}
    for name, layer in state.layers.items():
        tensors[f"{_PREFIX}{name}{_A}"] = layer.A.contiguous()
        tensors[f"{_PREFIX}{name}{_B}"] = layer.B.contiguous()
    return config_dict, tensors, gate_tensors(state)


def from_peft(
    config: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    gates: Mapping[str, Tensor],
    groups: Mapping[GroupName, GroupConfig],
) -> AdapterState:
    """The counterpart of `to_peft`; ``groups`` hold full target names, as a manifest lists them.

    Raises:
        StateMismatch: a tensor is missing, unknown or of the wrong shape, or config and groups disagree.
    """
    names = {name for group in groups.values() for name in group.targets}
    expected = {f"{_PREFIX}{name}{end}" for name in names for end in (_A, _B)}
    expected_gates = {f"{name}{end}" for name in names for end in (".G", ".b")} | {"a"}
    _same_keys("adapter tensors", expected, set(tensors))
    _same_keys("gate tensors", expected_gates, set(gates))
    _same_keys("target modules", names, set(config.get("target_modules") or ()))
    layers = {
        name: LayerState(
            A=tensors[f"{_PREFIX}{name}{_A}"],
            B=tensors[f"{_PREFIX}{name}{_B}"],
            G=gates[f"{name}.G"].float(),
            b=gates[f"{name}.b"].float(),
        )
        for name in sorted(names)
    }
    state = AdapterState(dict(groups), layers, a=float(gates["a"].to(torch.float64).reshape(())))
    _same_scale(config, state)
    return state


def _same_keys(what: str, expected: set[str], found: set[str]) -> None:
    if expected != found:
        missing, unknown = sorted(expected - found), sorted(found - expected)
        raise StateMismatch(f"{what} do not match the groups: missing {missing}, unknown {unknown}")


def _same_scale(config: Mapping[str, Any], state: AdapterState) -> None:
    """The ranks and alphas that plain peft would use must be those of the groups."""
    ranks, alphas = config.get("rank_pattern") or {}, config.get("alpha_pattern") or {}
    for name, group in state.group_of.items():
        rank, alpha = ranks.get(name, config.get("r")), alphas.get(name, config.get("lora_alpha"))
        wanted = state.coefficient(group) * state.groups[group].lora_alpha
        same = rank == state.groups[group].rank_total and alpha is not None
        if not same or abs(alpha - wanted) > 1e-6 * abs(wanted):
            raise StateMismatch(f"{name}: the LoRA's rank {rank} and alpha {alpha} are not its group's")
