"""The arms of peft do the same work as the engine: with equal gates they give the same tokens."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from benchmarks.case import Case, demo_case, random_case
from benchmarks.engine_arm import own_domains, running, together
from benchmarks.peft_arm import MixedBatch, write_lora
from benchmarks.plan import QUICK
from benchmarks.subject import Subject
from benchmarks.xlora import write_experts
from milora import AdapterState, LayerState, MiloraConfig
from tests.benchmarks.shapes import TINY

TOKENS = 12
STRONG = 40.0
"""B is scaled by this: the answers then differ by domain."""


def language_model_only(state: AdapterState) -> AdapterState:
    """The temporal half of an adapter with every gate at 1/K: exactly a LoRA of rank K·r."""
    group = state.groups["temporal"]
    layers = {
        name: LayerState(part.A, part.B * STRONG, torch.zeros_like(part.G), torch.zeros_like(part.b))
        for name, part in state.layers.items()
        if name in group.targets
    }
    return AdapterState({"temporal": group}, layers)


@pytest.fixture(scope="module")
def uniform(subject: Subject) -> Case:
    case = random_case(subject, QUICK, TINY, torch.float32).endless()
    adapters = {domain: language_model_only(state) for domain, state in case.adapters.items()}
    return replace(case, room=MiloraConfig(temporal=case.room.temporal), adapters=adapters)


@pytest.mark.parametrize("cache", ["dynamic", "static"])
def test_a_mixed_batch_of_peft_gives_the_engines_tokens(uniform: Case, tmp_path: Path, cache: str) -> None:
    peft = MixedBatch(uniform, tmp_path / cache)
    peft.cache = cache
    theirs, _ = peft.generate(TOKENS)
    with running(uniform) as on:
        ours = [list(answer.token_ids) for answer in together(on, own_domains(on), TOKENS).answers]
    assert ours == theirs
    assert len({tuple(tokens) for tokens in ours}) > 1


def test_a_trial_chooses_a_cache(uniform: Case, tmp_path: Path) -> None:
    peft = MixedBatch(uniform, tmp_path / "loras")
    peft.choose_cache()
    assert peft.cache in ("dynamic", "static")


def test_a_twin_shares_every_weight_and_no_module(uniform: Case) -> None:
    model, twin = uniform.backbone.model, uniform.twin().model
    pairs = zip(model.parameters(), twin.parameters(), strict=True)
    assert all(one.data_ptr() == other.data_ptr() for one, other in pairs)
    assert not set(map(id, model.modules())) & set(map(id, twin.modules()))


def test_experts_written_apart_are_the_blocks_of_the_adapter(uniform: Case, tmp_path: Path) -> None:
    state = next(iter(uniform.adapters.values()))
    folders = write_experts(state, tmp_path / "experts")
    assert list(folders) == ["0", "1", "2", "3"]
    name, layer = next(iter(state.layers.items()))
    key = f"base_model.model.{name}.lora_A.weight"
    parts = [read_tensors(folder)[key] for folder in folders.values()]
    assert torch.equal(torch.cat(parts), layer.A)


def test_a_lora_of_some_layers_holds_no_others(subject: Subject, tmp_path: Path) -> None:
    state = next(iter(demo_case(subject, QUICK).adapters.values()))
    tensors = read_tensors(write_lora(state, tmp_path / "lora", only="language_model"))
    assert tensors
    assert all("language_model" in name for name in tensors)


def read_tensors(folder: str) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(Path(folder) / "adapter_model.safetensors")
