"""Failure signatures: each on a case made to show it, and silent on a sound one."""

from __future__ import annotations

import pytest
import torch

from milora import GroupConfig, MiloraConfig, inject
from tests.milora.clips import batch_of, clip
from tests.tiny_backbone import tiny_model
from training import signatures
from training.signatures import GateWatch, alike, no_gain, order_not_learned, similarity, too_much_decay
from training.trainer.quality import Facts, Quality

TARGETS = tuple(f"model.language_model.layers.*.self_attn.{name}_proj" for name in "qkvo")


@pytest.fixture
def handle():
    torch.manual_seed(0)
    model = tiny_model()
    handle = inject(model, MiloraConfig(temporal=GroupConfig(TARGETS, 4, 2, 8.0)))
    with torch.no_grad():
        for layer in handle.layers:
            layer.B.normal_(0, 0.1)
    handle.base = [model]  # in a list: no child of the handle
    return handle


def watched(handle) -> GateWatch:
    watch = GateWatch(handle)
    batch = batch_of([clip(2, 5, seed=1), clip(3, 9, seed=2)])
    with torch.no_grad(), handle.training_pass(**batch.routing) as routing:
        handle.base[0](**batch.inputs)
    watch.share = watch.see(routing)
    return watch


def test_even_gates_and_experts_of_their_own_show_nothing(handle) -> None:
    watch = watched(handle)
    assert watch.share > 0.95
    assert watch.findings() == []


def test_gates_that_always_choose_one_expert_are_told_as_collapsed(handle) -> None:
    with torch.no_grad():
        for layer in handle.layers:
            layer.b[0, 2] = 20.0
    watch = watched(handle)
    assert watch.share < 0.05
    (finding,) = watch.findings()
    assert finding.code == "experts_collapsed"
    assert "8 of 8 temporal layers" in finding.seen
    assert "μ" in finding.advice


def test_gates_that_choose_otherwise_for_every_video_have_not_collapsed() -> None:
    usage = {"layer": torch.tensor([0.25, 0.25, 0.25, 0.25])}
    handle = inject(tiny_model(), MiloraConfig(temporal=GroupConfig(TARGETS[:1], 4, 2, 8.0)))
    usage = {layer.name: usage["layer"] for layer in handle.layers}
    assert signatures.collapsed(handle, usage, entropy=dict.fromkeys(usage, 0.0)) == []


def test_the_entropy_of_a_collapse_is_its_own_groups() -> None:
    both = MiloraConfig(
        temporal=GroupConfig(TARGETS[:1], 4, 2, 8.0), spatial=GroupConfig(TARGETS[1:2], 2, 2, 8.0)
    )
    handle = inject(tiny_model(), both)
    entropy = {layer.name: 0.1 if layer.group == "temporal" else 0.6 for layer in handle.layers}
    usage = {layer.name: torch.eye(layer.experts)[0] for layer in handle.layers}
    temporal, spatial = signatures.collapsed(handle, usage, entropy)
    assert "mean entropy 0.10 of at most 1.39" in temporal.seen
    assert "mean entropy 0.60 of at most 0.69" in spatial.seen


def test_experts_that_are_copies_are_told_as_alike(handle) -> None:
    with torch.no_grad():
        for layer in handle.layers:
            for stack in (layer.A, layer.B):
                stack[0] = stack[0, :2].repeat(4, 1)
    (finding,) = alike(handle)
    assert finding.code == "experts_alike"
    assert "similarity 1.00" in finding.seen


def test_similarity_is_one_of_equal_and_zero_of_orthogonal_updates(handle) -> None:
    layer = handle.layers[0]
    with torch.no_grad():
        basis = torch.eye(layer.fan_in)
        layer.A[0] = basis[[0, 1, 0, 1, 2, 3, 4, 5]]
        layer.B[0] = torch.eye(layer.fan_out)[[0, 1, 1, 0, 2, 3, 4, 5]]
    square = similarity(layer)
    torch.testing.assert_close(square[0, 1], torch.tensor(1.0))
    torch.testing.assert_close(square[0, 2], torch.tensor(0.0))
    layer.B.data.zero_()
    assert similarity(layer)[0, 1] == 0.0


def test_a_loss_that_stalls_while_norms_shrink_is_told_as_too_much_decay() -> None:
    norms = [100.0 - step for step in range(40)]
    (finding,) = too_much_decay([1.0] * 40, norms)
    assert finding.code == "lambda_too_strong"
    assert "λ" in finding.advice
    assert too_much_decay([1.0 - 0.01 * step for step in range(40)], norms) == []  # it still learns
    assert too_much_decay([1.0] * 40, [100.0 + step for step in range(40)]) == []  # norms grow
    assert too_much_decay([1.0] * 10, norms[:10]) == []  # too early to say


def quality(rouge_l: float = 0.5, **recall: float) -> Quality:
    facts = Facts(0.5, 0.5, 0.5, {"object": 0.9, "order": 0.8, **recall})
    return Quality(10, rouge_l, 0.0, facts, "", "")


def test_objects_without_their_order_tell_of_temporal_experts_that_under_train() -> None:
    (finding,) = order_not_learned(quality(object=0.9, order=0.2))
    assert finding.code == "order_not_learned"
    assert "emporal experts" in finding.advice
    assert order_not_learned(quality(object=0.9, order=0.8)) == []
    assert order_not_learned(quality(object=0.2, order=0.0)) == []  # objects first


def test_answers_no_better_than_the_frozen_backbones_are_told() -> None:
    (finding,) = no_gain(quality(0.305), quality(0.3))
    assert finding.code == "no_gain"
    assert "0.305" in finding.seen
    assert no_gain(quality(0.4), quality(0.3)) == []
    assert no_gain(quality(0.4), None) == []
