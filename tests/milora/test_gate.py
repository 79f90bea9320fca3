"""Gates: what they are computed from, and what must not change them."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from milora import gate_report, inject, video_llama_3
from tests.milora.clips import CONFIG, batch_of, capture_input, clip, random_state

LAYERS = (
    "model.vision_model.embeddings.patch_embedding",
    "model.vision_model.encoder.layers.1.mlp.fc2",
    "model.language_model.layers.0.self_attn.k_proj",
    "model.language_model.layers.1.self_attn.o_proj",
)


@pytest.mark.parametrize("name", LAYERS)
def test_a_gate_follows_from_the_layers_input_by_hand(model: nn.Module, name: str) -> None:
    handle = inject(model, CONFIG)
    state = random_state(handle, seed=1)
    handle.load_state(state)
    seen = capture_input(model, name)
    clips = [clip(2, 5, seed=1), clip(3, 9, seed=2)]
    batch = batch_of(clips)
    with handle.prefill([1, 1], **batch.routing) as routing:
        model(**batch.inputs)
    rows = seen[0].flatten(1) if seen[0].dim() == 4 else seen[0]
    if rows.dim() == 2:
        own = rows.split(batch.patches)
    else:
        own = [row[mask] for row, mask in zip(rows, batch.prompt_mask, strict=True)]
    layer = state.layers[name]
    for record, tokens in zip(handle.records(routing), own, strict=True):
        expected = torch.softmax(layer.G.double() @ tokens.double().mean(0) + layer.b.double(), dim=0)
        assert (record.by_layer()[name] - expected).abs().max() < 1e-5


def test_the_answers_tokens_do_not_reach_a_gate(model: nn.Module) -> None:
    handle = inject(model, CONFIG)
    handle.load_state(random_state(handle, seed=1))
    batch = batch_of([clip(2, 5, seed=1)])
    with handle.prefill([1], **batch.routing) as routing:
        model(**batch.inputs)
    alone = handle.records(routing)[0].gates
    answer = torch.randint(0, 200, (1, 7))
    inputs = dict(batch.inputs)
    inputs["input_ids"] = torch.cat([inputs["input_ids"], answer], 1)
    inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
    inputs["position_ids"] = torch.arange(inputs["input_ids"].shape[1])[None]
    mask = torch.cat([batch.prompt_mask, torch.zeros(1, 7, dtype=torch.bool)], 1)
    with handle.prefill([1], prompt_mask=mask, patches=batch.patches) as routing:
        model(**inputs)
    torch.testing.assert_close(handle.records(routing)[0].gates, alone, rtol=0, atol=1e-6)


def test_a_videos_gates_do_not_depend_on_neighbours_or_padding(model: nn.Module) -> None:
    handle = inject(model, CONFIG, slots=2)
    for slot in (1, 2):
        handle.load_state(random_state(handle, seed=slot), slot)
    mine, others = clip(3, 4, seed=1), [clip(5, 11, seed=2), clip(2, 7, seed=3)]
    with handle.prefill([1], **batch_of([mine]).routing) as routing:
        model(**batch_of([mine]).inputs)
    alone = handle.records(routing)[0].gates
    crowd = batch_of([others[0], mine, others[1]], pad_to=60)
    with handle.prefill([2, 1, 0], **crowd.routing) as routing:
        model(**crowd.inputs)
    torch.testing.assert_close(handle.records(routing)[1].gates, alone, rtol=0, atol=1e-6)


def test_two_videos_get_different_gates(model: nn.Module) -> None:
    handle = inject(model, CONFIG)
    handle.load_state(random_state(handle, seed=1))
    batch = batch_of([clip(2, 5, seed=1), clip(2, 5, seed=2)])
    with handle.prefill([1, 1], **batch.routing) as routing:
        model(**batch.inputs)
    first, second = (record.gates for record in handle.records(routing))
    assert (first - second).abs().amax(1).min() > 1e-4


def test_a_single_expert_always_has_weight_one(model: nn.Module) -> None:
    config = video_llama_3(experts=1, rank=4)
    handle = inject(model, config)
    handle.load_state(random_state(handle, seed=1, config=config))
    batch = batch_of([clip(2, 5, seed=1), clip(3, 6, seed=2)])
    with handle.prefill([1, 1], **batch.routing) as routing:
        model(**batch.inputs)
    for record in handle.records(routing):
        assert torch.equal(record.gates, torch.ones_like(record.gates))
        assert gate_report(record).groups["temporal"].entropy == 0.0


def test_fresh_gates_start_near_uniform(model: nn.Module) -> None:
    handle = inject(model, CONFIG)
    batch = batch_of([clip(2, 5, seed=s) for s in range(8)])
    with handle.calibrate(), handle.training_pass(**batch.routing):
        model(**batch.inputs)
    with handle.training_pass(**batch.routing) as routing:
        model(**batch.inputs)
    gates = torch.stack([record.gates for record in handle.records(routing)])
    assert (gates - 1 / 3).abs().max() < 0.2
    assert gates.std(0).min() > 1e-4


def test_a_calibrated_gate_is_the_same_after_export(model: nn.Module) -> None:
    handle = inject(model, CONFIG)
    batch = batch_of([clip(2, 5, seed=s) for s in range(4)])
    with handle.calibrate(), handle.training_pass(**batch.routing):
        model(**batch.inputs)
    with handle.training_pass(**batch.routing) as routing:
        model(**batch.inputs)
    trained = [record.gates for record in handle.records(routing)]
    state = handle.export_state()
    handle.remove()
    serving = inject(model, CONFIG, slots=2)
    serving.load_state(state, 2)
    with serving.prefill([2] * 4, **batch.routing) as routing:
        model(**batch.inputs)
    for record, gates in zip(serving.records(routing), trained, strict=True):
        torch.testing.assert_close(record.gates, gates, rtol=0, atol=1e-5)


def test_calibration_standardizes_what_the_gate_reads(model: nn.Module) -> None:
    handle = inject(model, CONFIG)
    batch = batch_of([clip(2, 5, seed=s) for s in range(16)])
    with handle.calibrate(), handle.training_pass(**batch.routing):
        model(**batch.inputs)
    layer = handle.layers[0]
    seen = []
    layer.observer = lambda _, z: seen.append((z - layer.mean) * layer.inverse_std * layer.fan_in**0.5)
    with handle.training_pass(**batch.routing):
        model(**batch.inputs)
    assert seen[0].mean(0).abs().max() < 1e-4
    torch.testing.assert_close(seen[0].std(0), torch.ones(layer.fan_in), rtol=0, atol=1e-3)


def test_the_report_averages_each_groups_layers(model: nn.Module) -> None:
    handle = inject(model, CONFIG)
    handle.load_state(random_state(handle, seed=1))
    batch = batch_of([clip(2, 5, seed=1)])
    with handle.prefill([1], **batch.routing) as routing:
        model(**batch.inputs)
    record = handle.records(routing)[0]
    report = gate_report(record)
    temporal = torch.stack([g for name, g in record.by_layer().items() if "language_model" in name])
    assert report.groups["temporal"].experts == pytest.approx(temporal.mean(0).tolist())
    entropy = -(temporal * temporal.log()).sum(1).mean().item()
    assert report.groups["temporal"].entropy == pytest.approx(entropy, abs=1e-5)
    assert [layer.name for layer in report.layers] == [layer.name for layer in handle.layers]
    assert all(sum(layer.experts) == pytest.approx(1.0) for layer in report.layers)


def test_a_request_without_an_adapter_has_no_gates(model: nn.Module) -> None:
    handle = inject(model, CONFIG, slots=2)
    handle.load_state(random_state(handle, seed=1), 1)
    batch = batch_of([clip(2, 5, seed=1), clip(2, 5, seed=2)])
    with handle.prefill([0, 1], **batch.routing) as routing:
        model(**batch.inputs)
    report = gate_report(handle.records(routing)[0])
    assert report.layers == ()
    assert report.groups == {}
