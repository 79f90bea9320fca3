"""Adapters as PEFT LoRAs: plain peft must agree, and what does not fit is refused."""

from __future__ import annotations

import json
from pathlib import Path

import peft
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from milora import (
    AdapterState,
    GroupConfig,
    LayerState,
    MiloraConfig,
    StateMismatch,
    from_peft,
    inject,
    to_peft,
)
from tests.milora.clips import CONFIG, batch_of, clip, random_state


def uniform(state: AdapterState) -> AdapterState:
    """The same adapter with every gate at 1/K."""
    layers = {
        name: LayerState(layer.A, layer.B, torch.zeros_like(layer.G), torch.zeros_like(layer.b))
        for name, layer in state.layers.items()
    }
    return AdapterState(state.groups, layers, state.a)


def two_shapes() -> MiloraConfig:
    """Groups that differ in experts, rank and alpha, as an adapter may have them."""
    return MiloraConfig(
        temporal=GroupConfig(CONFIG.temporal.targets, 3, 2, 6.0, temperature=0.5),
        spatial=GroupConfig(CONFIG.spatial.targets, 2, 3, 10.0),
    )


# peft asks transformers for an attribute by its old name.
@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")
@pytest.mark.parametrize("config", [CONFIG, two_shapes(), MiloraConfig(temporal=CONFIG.temporal)])
@pytest.mark.parametrize("a", [0.0, -1.3])
def test_plain_peft_equals_uniform_gates(
    model: nn.Module, tmp_path: Path, config: MiloraConfig, a: float
) -> None:
    handle = inject(model, config)
    state = random_state(handle, seed=1, config=config, a=a)
    handle.load_state(uniform(state))
    batch = batch_of([clip(2, 5, seed=1), clip(3, 4, seed=2)])
    base = model(**batch.inputs).logits
    with torch.no_grad(), handle.prefill([1, 1], **batch.routing):
        expected = model(**batch.inputs).logits
    handle.remove()
    adapter_config, tensors, _ = to_peft(state, "tiny")
    (tmp_path / "adapter_config.json").write_text(json.dumps(adapter_config))
    save_file(tensors, tmp_path / "adapter_model.safetensors")
    plain = peft.PeftModel.from_pretrained(model, tmp_path)
    with torch.no_grad():
        found = plain(**batch.inputs).logits
    mask = batch.prompt_mask
    assert (expected - base)[mask].abs().max() > 0.1
    assert (found - expected)[mask].abs().max() < 1e-4


def test_a_state_survives_the_way_through_peft(model: nn.Module) -> None:
    handle = inject(model, two_shapes())
    state = random_state(handle, seed=1, config=two_shapes())
    config, tensors, gates = to_peft(state)
    back = from_peft(json.loads(json.dumps(config)), tensors, gates, state.groups)
    assert back.groups == dict(state.groups)
    assert back.a == pytest.approx(state.a, rel=1e-6)
    for name, layer in state.layers.items():
        for found, expected in zip(vars(back.layers[name]).values(), vars(layer).values(), strict=True):
            assert torch.equal(found, expected)


def test_gates_are_written_in_float32_whatever_the_experts_are(model: nn.Module) -> None:
    handle = inject(model.bfloat16(), CONFIG)
    _, tensors, gates = to_peft(handle.export_state())
    assert {tensor.dtype for tensor in tensors.values()} == {torch.bfloat16}
    assert {tensor.dtype for tensor in gates.values()} == {torch.float32}


Q = "model.language_model.layers.0.self_attn.q_proj"


def _drop_tensor(config: dict, tensors: dict[str, Tensor], gates: dict[str, Tensor]) -> None:
    del tensors[f"base_model.model.{Q}.lora_B.weight"]


def _add_tensor(config: dict, tensors: dict[str, Tensor], gates: dict[str, Tensor]) -> None:
    tensors["base_model.model.lm_head.lora_A.weight"] = torch.zeros(2, 2)


def _drop_gate(config: dict, tensors: dict[str, Tensor], gates: dict[str, Tensor]) -> None:
    del gates[f"{Q}.b"]


def _narrow_gate(config: dict, tensors: dict[str, Tensor], gates: dict[str, Tensor]) -> None:
    gates[f"{Q}.G"] = gates[f"{Q}.G"][:, 1:]


def _cut_rank(config: dict, tensors: dict[str, Tensor], gates: dict[str, Tensor]) -> None:
    tensors[f"base_model.model.{Q}.lora_A.weight"] = tensors[f"base_model.model.{Q}.lora_A.weight"][1:]


def _scalar_rank(config: dict, tensors: dict[str, Tensor], gates: dict[str, Tensor]) -> None:
    tensors[f"base_model.model.{Q}.lora_A.weight"] = torch.tensor(1.0)


def _change_alpha(config: dict, tensors: dict[str, Tensor], gates: dict[str, Tensor]) -> None:
    config["alpha_pattern"][Q] *= 1.01


def _drop_target(config: dict, tensors: dict[str, Tensor], gates: dict[str, Tensor]) -> None:
    config["target_modules"].remove(Q)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_drop_tensor, r"adapter tensors do not match.*missing \['base_model.*q_proj\.lora_B"),
        (_add_tensor, r"unknown \['base_model\.model\.lm_head"),
        (_drop_gate, r"gate tensors do not match.*q_proj\.b"),
        (_narrow_gate, r"q_proj: G is \(3, 31\), expected \(3, 32\)"),
        (_cut_rank, r"q_proj: A is \(5, 32\), its first dimension must be K·r = 6"),
        (_scalar_rank, r"q_proj: A is \(\), its first dimension must be K·r = 6"),
        (_change_alpha, r"q_proj: the LoRA's rank 6 and alpha .* are not its group's"),
        (_drop_target, r"target modules do not match"),
    ],
)
def test_a_damaged_adapter_is_refused_by_name(model: nn.Module, damage, message: str) -> None:
    handle = inject(model, CONFIG)
    state = random_state(handle, seed=1)
    config, tensors, gates = to_peft(state)
    damage(config, tensors, gates)
    with pytest.raises(StateMismatch, match=message):
        from_peft(config, tensors, gates, state.groups)
