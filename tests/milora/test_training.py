"""What training changes, and what it must not."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from milora import GroupConfig, MiloraConfig, MiloraModel, balance, frobenius, inject, video_llama_3
from tests.milora.clips import CONFIG, ClipBatch, batch_of, bytes_of, clip, random_state


def answered(batch: ClipBatch, tokens: int = 5) -> tuple[ClipBatch, Tensor]:
    """The batch with an answer after every prompt, and the labels of that answer."""
    videos = batch.prompt_mask.shape[0]
    answer = torch.randint(0, 200, (videos, tokens), generator=torch.Generator().manual_seed(9))
    inputs = dict(batch.inputs)
    inputs["input_ids"] = torch.cat([inputs["input_ids"], answer], 1)
    inputs["attention_mask"] = torch.cat([inputs["attention_mask"], torch.ones_like(answer)], 1)
    inputs["position_ids"] = (inputs["attention_mask"].cumsum(1) - 1).clamp_min(0)
    mask = torch.cat([batch.prompt_mask, torch.zeros_like(answer, dtype=torch.bool)], 1)
    labels = torch.full_like(inputs["input_ids"], -100)
    labels[:, -tokens:] = answer
    return ClipBatch(inputs, mask, batch.patches), labels


def train(model: nn.Module, handle: MiloraModel, steps: int, lr: float = 1e-2) -> list[float]:
    batch, labels = answered(batch_of([clip(2, 5, seed=1), clip(3, 4, seed=2)]))
    kinds = handle.trainable_parameters()
    optimizer = torch.optim.AdamW([parameter for kind in kinds.values() for parameter in kind], lr=lr)
    handle.train()
    losses = []
    for _ in range(steps):
        with handle.training_pass(**batch.routing) as routing:
            loss = model(**batch.inputs, labels=labels).loss
        (loss + 1e-5 * frobenius(handle) + 1e-2 * balance(routing)).backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    handle.eval()
    return losses


def test_training_lowers_the_loss_and_leaves_the_base_bytes_alone(model: nn.Module) -> None:
    content = bytes_of(model)
    losses = train(model, inject(model, CONFIG), steps=40)
    assert losses[-1] < losses[0] - 0.5
    assert bytes_of(model) == content


def test_gradients_reach_experts_gates_and_fusion_and_nothing_else(model: nn.Module) -> None:
    handle = inject(model, CONFIG)
    train(model, handle, steps=1)  # B leaves zero, so that A and G get gradients too
    batch, labels = answered(batch_of([clip(2, 5, seed=1), clip(3, 4, seed=2)]))
    with handle.training_pass(**batch.routing):
        model(**batch.inputs, labels=labels).loss.backward()
    kinds = handle.trainable_parameters()
    counts = {kind: len(parameters) for kind, parameters in kinds.items()}
    assert counts == {"A": 13, "B": 13, "G": 13, "a": 1}
    for parameters in kinds.values():
        assert all(parameter.grad.abs().max() > 0 for parameter in parameters)
    assert {id(p) for kind in kinds.values() for p in kind} == {id(p) for p in handle.parameters()}
    assert all(parameter.grad is None for parameter in model.parameters())


def test_the_gates_input_passes_gradients_on_only_when_told(model: nn.Module) -> None:
    q_proj = "model.language_model.layers.0.self_attn.q_proj"
    patch = "model.vision_model.embeddings.patch_embedding"
    gradients = {}
    for told in (False, True):
        group = {"experts": 3, "rank": 2, "lora_alpha": 6.0}
        config = MiloraConfig(
            temporal=GroupConfig((q_proj,), **group),
            spatial=GroupConfig((patch,), **group),
            gate_input_gradient=told,
        )
        handle = inject(model, config)
        handle.load_state(random_state(handle, 1, config))
        batch = batch_of([clip(2, 5, seed=1)])
        with handle.training_pass(**batch.routing) as routing:
            model(**batch.inputs)
        routing.gates[1].square().sum().backward()
        gradients[told] = handle.layers[0].A.grad
        handle.remove()
    assert gradients[False] is None
    assert gradients[True].abs().max() > 0


def test_without_a_second_group_the_fusion_scalar_is_not_trained(model: nn.Module) -> None:
    handle = inject(model, MiloraConfig(temporal=CONFIG.temporal))
    assert handle.trainable_parameters()["a"] == []
    train(model, handle, steps=2)
    state = handle.export_state()
    assert state.a == 0.0
    assert state.coefficient("temporal") == 1.0
    assert state.fusion_alpha == 0.5


def test_the_trained_model_and_its_export_agree(model: nn.Module) -> None:
    handle = inject(model, CONFIG)
    train(model, handle, steps=6)
    batch = batch_of([clip(2, 5, seed=3), clip(3, 4, seed=4)])
    with torch.no_grad(), handle.training_pass(**batch.routing):
        trained = model(**batch.inputs).logits
    state = handle.export_state()
    handle.remove()
    serving = inject(model, CONFIG, slots=3)
    serving.load_state(state, 2)
    with torch.no_grad(), serving.prefill([2, 2], **batch.routing):
        served = model(**batch.inputs).logits
    torch.testing.assert_close(served[batch.prompt_mask], trained[batch.prompt_mask], rtol=1e-4, atol=1e-4)


def test_training_goes_on_from_a_loaded_adapter(model: nn.Module) -> None:
    handle = inject(model, CONFIG)
    train(model, handle, steps=6)
    state = handle.export_state()
    handle.remove()
    resumed = inject(model, CONFIG, seed=5)
    resumed.load_state(state)
    again = resumed.export_state()
    for name, layer in state.layers.items():
        torch.testing.assert_close(again.layers[name].G, layer.G, rtol=1e-5, atol=1e-6)
        assert torch.equal(again.layers[name].A, layer.A)
    further = train(model, resumed, steps=1)[0]
    resumed.remove()
    assert further < train(model, inject(model, CONFIG), steps=1)[0] - 0.1


def test_dropout_acts_in_training_only(model: nn.Module) -> None:
    group = replace(CONFIG.temporal, dropout=0.5)
    handle = inject(model, MiloraConfig(temporal=group))
    state = random_state(handle, 1, MiloraConfig(temporal=group))
    handle.load_state(state)
    batch = batch_of([clip(2, 5, seed=1)])

    def logits() -> Tensor:
        with torch.no_grad(), handle.training_pass(**batch.routing):
            return model(**batch.inputs).logits

    served = logits()
    assert torch.equal(served, logits())
    handle.train()
    assert not torch.equal(logits(), logits())
    handle.eval()
    assert torch.equal(served, logits())


def test_frobenius_is_the_sum_of_the_experts_squared_norms(model: nn.Module) -> None:
    handle = inject(model, CONFIG)
    state = random_state(handle, seed=1)
    handle.load_state(state)
    by_hand = 0.0
    for layer in state.layers.values():
        for k in range(3):
            block = slice(2 * k, 2 * k + 2)
            by_hand += layer.A[block].norm().item() ** 2 + layer.B[:, block].norm().item() ** 2
    assert frobenius(handle).item() == pytest.approx(by_hand, rel=1e-4)


@pytest.mark.parametrize(
    ("gates", "expected"),
    [
        ([[0.5, 0.5], [0.5, 0.5]], 0.0),
        ([[1.0, 0.0], [0.0, 1.0]], 0.0),
        ([[1.0, 0.0], [1.0, 0.0]], math.log(2)),
    ],
)
def test_balance_measures_the_batchs_mean_gate(
    model: nn.Module, gates: list[list[float]], expected: float
) -> None:
    routing = inject(model, video_llama_3(experts=2)).route([1, 1], patches=[4, 4])
    routing.gates = {0: torch.tensor(gates), 1: torch.tensor(gates)}
    assert balance(routing).item() == pytest.approx(expected, abs=1e-6)


def test_balance_pulls_a_collapsed_gate_back(model: nn.Module) -> None:
    routing = inject(model, video_llama_3(experts=2)).route([1, 1], patches=[4, 4])
    logits = torch.tensor([[3.0, 0.0], [3.0, 0.0]], requires_grad=True)
    routing.gates = {0: logits.softmax(-1)}
    balance(routing).backward()
    assert (logits.grad[:, 0] > 0).all()
    assert (logits.grad[:, 1] < 0).all()


def test_balance_of_a_pass_that_did_not_run_is_an_error(model: nn.Module) -> None:
    handle = inject(model, CONFIG)
    with pytest.raises(ValueError, match="computed no gates"):
        balance(handle.route([1], patches=[4]))
