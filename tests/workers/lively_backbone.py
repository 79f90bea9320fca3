"""A tiny backbone whose answers depend on everything: frames, prompt, adapter, and every token before.

The plain one of `tests/tiny_backbone.py` falls into saying two tokens in turns, whatever it is shown, and would
hide a lost position or another request's cache. This one is drawn so that attention is sharp and signals keep
their size.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from milora import AdapterState
from model_store.backbone import Backbone
from tests.tiny_backbone import write_tiny_backbone
from tests.workers.adapters import load, random_state

GAIN = 2.0
"""Standard deviation of a weight, times the square root of what it sums over."""
GATE_GAIN = 3.0
STOP_IDS = [258, 200]
"""`<|im_end|>`, and a byte that the model says often enough for a part of the answers to stop early."""


def write_lively_backbone(folder: Path) -> Path:
    """A stock checkpoint folder, the same at every call."""
    write_tiny_backbone(folder, tied=False)
    model = load(folder).model
    generator = torch.Generator().manual_seed(1)
    for name, parameter in model.named_parameters():
        parameter.copy_(_drawn(name, parameter, generator))
    model.save_pretrained(folder)
    return folder


def _drawn(name: str, parameter: nn.Parameter, generator: torch.Generator) -> torch.Tensor:
    if parameter.dim() > 1:
        gain = 1.0 if "embed_tokens" in name or "lm_head" in name else GAIN
        return torch.randn(parameter.shape, generator=generator) * gain / parameter[0].numel() ** 0.5
    if "norm" in name and name.endswith("weight"):
        return torch.ones(parameter.shape)
    return torch.randn(parameter.shape, generator=generator) * 0.1


def mixed_states(backbone: Backbone) -> dict[int, AdapterState]:
    """Slot → adapter: another number of experts, rank, balance or temperature in each, the last of one group."""
    states = {
        1: random_state(backbone, 1, experts=3, rank=2),
        2: replace(random_state(backbone, 2, experts=2, rank=4), a=-0.8),
        3: _warmer(random_state(backbone, 3, experts=4, rank=3)),
        4: random_state(backbone, 4, experts=1, rank=5, one_group=True),
    }
    return {slot: _with_sharper_gates(state) for slot, state in states.items()}


def _warmer(state: AdapterState) -> AdapterState:
    groups = {name: replace(group, temperature=2.0) for name, group in state.groups.items()}
    return replace(state, groups=groups)


def _with_sharper_gates(state: AdapterState) -> AdapterState:
    layers = {name: replace(layer, G=layer.G * GATE_GAIN) for name, layer in state.layers.items()}
    return replace(state, layers=layers)
