"""Top-k gates, and the ways of having a fusion: the same in training and serving."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from milora import ConfigError, inject
from milora.gate import top_k
from tests.milora.clips import CONFIG, batch_of, clip, random_state

SPARSE = replace(CONFIG, temporal=replace(CONFIG.temporal, top_k=1), spatial=replace(CONFIG.spatial, top_k=2))


def test_all_but_the_largest_logits_are_put_out() -> None:
    logits = torch.tensor([[0.0, 3.0, 1.0], [2.0, 2.0, 2.0]])
    kept = top_k(logits, torch.tensor([2, 1]))
    assert kept.isneginf().tolist() == [[True, False, False], [False, True, True]]


def test_only_k_experts_have_a_weight_and_the_weights_sum_to_one(model: nn.Module) -> None:
    handle = inject(model, SPARSE)
    handle.load_state(replace_groups(random_state(handle, seed=1), SPARSE))
    batch = batch_of([clip(2, 5, seed=1), clip(3, 9, seed=2)])
    with handle.training_pass(**batch.routing) as routing:
        model(**batch.inputs)
    for layer in handle.layers:
        gates = routing.gates[layer.index]
        wanted = SPARSE.groups[layer.group].top_k
        assert ((gates > 0).sum(1) == wanted).all()
        torch.testing.assert_close(gates.sum(1), torch.ones(2))


def test_a_sparse_and_a_dense_adapter_in_one_batch_answer_as_each_alone(model: nn.Module) -> None:
    handle = inject(model, SPARSE, slots=2)
    state = random_state(handle, seed=1)
    handle.load_state(replace_groups(state, SPARSE), 1)
    handle.load_state(replace_groups(state, CONFIG), 2)
    batch = batch_of([clip(2, 5, seed=1)])
    alone = []
    for slot in (1, 2):
        with torch.no_grad(), handle.prefill([slot], **batch.routing):
            alone.append(model(**batch.inputs).logits[0, -1])
    both = batch_of([clip(2, 5, seed=1), clip(2, 5, seed=1)])
    with torch.no_grad(), handle.prefill([1, 2], **both.routing):
        together = model(**both.inputs).logits[:, -1]
    assert (alone[0] - alone[1]).abs().max() > 1e-3
    torch.testing.assert_close(together, torch.stack(alone), atol=1e-4, rtol=1e-4)


def test_more_experts_than_there_are_cannot_speak() -> None:
    with pytest.raises(ConfigError, match="top_k"):
        replace(CONFIG.temporal, top_k=CONFIG.temporal.experts + 1)


def test_a_fixed_fusion_is_not_trained(model: nn.Module) -> None:
    assert inject(model, replace(CONFIG, fusion="fixed")).trainable_parameters()["a"] == []


def test_a_fusion_per_layer_is_in_the_exported_experts(model: nn.Module) -> None:
    handle = inject(model, replace(CONFIG, fusion="per_layer"))
    handle.load_state(random_state(handle, seed=1))
    handle.fusion.a.data.zero_()
    with torch.no_grad():
        for place, layer in enumerate(handle.layers):
            layer.a.fill_(0.5 - 0.1 * place)
    batch = batch_of([clip(2, 5, seed=1)])
    with torch.no_grad(), handle.training_pass(**batch.routing):
        trained = model(**batch.inputs).logits
    state = handle.export_state()
    assert len(handle.trainable_parameters()["a"]) == len(handle.layers)
    handle.remove()
    served = inject(model, CONFIG)
    served.load_state(state)
    with torch.no_grad(), served.prefill([1], **batch.routing):
        torch.testing.assert_close(model(**batch.inputs).logits, trained, atol=1e-4, rtol=1e-4)


def test_a_fusion_per_layer_is_refused_where_several_adapters_are_served(model: nn.Module) -> None:
    with pytest.raises(ConfigError, match="per layer"):
        inject(model, replace(CONFIG, fusion="per_layer"), slots=2)


def replace_groups(state, config):
    """The same tensors under another config's scales."""
    groups = {
        name: replace(config.groups[name], targets=group.targets) for name, group in state.groups.items()
    }
    return replace(state, groups=groups)
