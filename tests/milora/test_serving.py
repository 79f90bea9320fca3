"""Several adapters in one batch, gates computed once, answers decoded token by token."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn
from transformers import DynamicCache

from milora import GateRecord, GroupConfig, MiloraConfig, MiloraModel, RoutingError, inject
from tests.milora.clips import CONFIG, Clip, batch_of, clip, random_state

TOKENS = 6
CLIPS = [
    clip(frames, words, seed) for seed, (frames, words) in enumerate([(2, 5), (4, 9), (3, 3), (1, 12)] * 2)
]
SLOTS = [1, 2, 3, 4, 4, 0, 2, 1]


@pytest.fixture
def handle(model: nn.Module) -> MiloraModel:
    """The tiny model with four adapters resident."""
    handle = inject(model, CONFIG, slots=4)
    for slot in range(1, 5):
        handle.load_state(random_state(handle, seed=slot, a=slot - 2.0), slot)
    return handle


@torch.inference_mode()
def answer(
    model: nn.Module, handle: MiloraModel, clips: Sequence[Clip], slots: Sequence[int]
) -> tuple[Tensor, Tensor, list[GateRecord]]:
    """Greedy token ids (V, TOKENS), the logits they came from, and the gates."""
    batch = batch_of(clips)
    cache = DynamicCache(config=model.config)
    with handle.prefill(slots, **batch.routing) as routing:
        out = model(**batch.inputs, cache=cache, use_cache=True)
    records = handle.records(routing)
    reuse = handle.reuse(records)
    mask, position = batch.inputs["attention_mask"], batch.inputs["position_ids"][:, -1:]
    logits = [out.logits[:, -1]]
    for _ in range(TOKENS - 1):
        position = position + 1
        mask = torch.cat([mask, torch.ones_like(position)], 1)
        with handle.use(reuse):
            out = model(
                input_ids=logits[-1].argmax(-1, keepdim=True),
                attention_mask=mask,
                position_ids=position,
                cache=cache,
                use_cache=True,
            )
        logits.append(out.logits[:, -1])
    stacked = torch.stack(logits, 1)
    return stacked.argmax(-1), stacked, records


def test_a_mixed_batch_answers_each_request_as_it_is_answered_alone(
    model: nn.Module, handle: MiloraModel
) -> None:
    tokens, logits, _ = answer(model, handle, CLIPS, SLOTS)
    for row, (one, slot) in enumerate(zip(CLIPS, SLOTS, strict=True)):
        own_tokens, own_logits, _ = answer(model, handle, [one], [slot])
        assert torch.equal(tokens[row], own_tokens[0])
        torch.testing.assert_close(logits[row], own_logits[0], rtol=1e-4, atol=1e-4)


def test_every_adapter_of_the_batch_really_speaks(model: nn.Module, handle: MiloraModel) -> None:
    same = [CLIPS[0]] * 5
    _, logits, _ = answer(model, handle, same, [0, 1, 2, 3, 4])
    first = logits[:, 0]
    distances = torch.cdist(first, first) + torch.eye(5) * 100
    assert distances.min() > 0.1


def test_decoding_with_stored_gates_equals_one_pass_over_prompt_and_answer(
    model: nn.Module, handle: MiloraModel
) -> None:
    tokens, logits, _ = answer(model, handle, [CLIPS[1]], [3])
    batch = batch_of([CLIPS[1]])
    inputs = dict(batch.inputs)
    inputs["input_ids"] = torch.cat([inputs["input_ids"], tokens], 1)
    inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
    inputs["position_ids"] = torch.arange(inputs["input_ids"].shape[1])[None]
    mask = torch.cat([batch.prompt_mask, torch.zeros(1, TOKENS, dtype=torch.bool)], 1)
    with torch.inference_mode(), handle.prefill([3], prompt_mask=mask, patches=batch.patches):
        whole = model(**inputs).logits[:, -TOKENS - 1 : -1]
    torch.testing.assert_close(whole, logits, rtol=1e-4, atol=1e-4)


def test_a_request_without_an_adapter_gets_the_frozen_models_answer(
    model: nn.Module, handle: MiloraModel
) -> None:
    batch = batch_of([CLIPS[0], CLIPS[1]])
    frozen = model(**batch.inputs).logits
    with handle.prefill([0, 0], **batch.routing):
        assert torch.equal(model(**batch.inputs).logits, frozen)
    with handle.prefill([0, 2], **batch.routing):
        mixed = model(**batch.inputs).logits
    own = batch.prompt_mask[0]
    torch.testing.assert_close(mixed[0, own], frozen[0, own], rtol=1e-5, atol=1e-5)


def test_requests_may_leave_and_join_between_steps(model: nn.Module, handle: MiloraModel) -> None:
    _, _, records = answer(model, handle, CLIPS[:4], SLOTS[:4])
    ids = torch.arange(3)[:, None]
    with torch.inference_mode(), handle.use(handle.reuse([records[3], records[0], records[1]])):
        together = model(input_ids=ids).logits
    with torch.inference_mode(), handle.use(handle.reuse([records[0]])):
        alone = model(input_ids=ids[1:2]).logits
    torch.testing.assert_close(together[1:2], alone, rtol=1e-5, atol=1e-5)


def test_tower_and_prompt_may_run_apart_under_one_routing(model: nn.Module, handle: MiloraModel) -> None:
    batch = batch_of(CLIPS[:2])
    whole = handle.route([1, 2], **batch.routing)
    apart = handle.route([1, 2], **batch.routing)
    inputs = dict(batch.inputs)
    with torch.inference_mode(), handle.use(whole):
        expected = model(**inputs).logits
    pixels = [inputs.pop(name) for name in ("pixel_values_videos", "video_grid_thw", "video_merge_sizes")]
    with torch.inference_mode():
        with handle.use(apart):
            vision = model.model.get_video_features(*pixels, return_dict=True)
        with handle.use(apart):
            found = model(**inputs, mm_encoder_outputs={"video": vision}).logits
    assert torch.equal(found, expected)
    for one, other in zip(handle.records(whole), handle.records(apart), strict=True):
        assert torch.equal(one.gates, other.gates)


def test_an_adapter_may_be_smaller_than_its_slot_and_leave_layers_alone(model: nn.Module) -> None:
    small = MiloraConfig(temporal=GroupConfig(CONFIG.temporal.targets, 2, 1, 4.0))
    alone = inject(model, small)
    state = random_state(alone, seed=5, config=small)
    alone.load_state(state)
    batch = batch_of(CLIPS[:2])
    with torch.inference_mode(), alone.prefill([1, 1], **batch.routing) as routing:
        expected = model(**batch.inputs).logits
    gates = alone.records(routing)[0].by_layer()
    alone.remove()
    roomy = inject(model, CONFIG, slots=3)
    roomy.load_state(random_state(roomy, seed=1), 1)
    roomy.load_state(state, 3)
    with torch.inference_mode(), roomy.prefill([3, 1], **batch.routing) as routing:
        found = model(**batch.inputs).logits
    own = batch.prompt_mask[0]
    torch.testing.assert_close(found[0, own], expected[0, own], rtol=1e-4, atol=1e-4)
    record = roomy.records(routing)[0].by_layer()
    assert set(record) == set(gates)
    for name, gate in gates.items():
        torch.testing.assert_close(record[name], gate, rtol=0, atol=1e-6)
    exported = roomy.export_state(3)
    assert exported.groups == dict(state.groups)
    assert not exported.fused


def test_a_layer_without_a_stored_gate_cannot_be_reused(model: nn.Module, handle: MiloraModel) -> None:
    batch = batch_of(CLIPS[:1])
    vision = [batch.inputs[name] for name in ("pixel_values_videos", "video_grid_thw", "video_merge_sizes")]
    with torch.inference_mode(), handle.prefill([1], **batch.routing) as routing:
        model.model.get_video_features(*vision)
    reuse = handle.reuse(handle.records(routing))
    with pytest.raises(RoutingError, match=r"q_proj: a request has no gate"), handle.use(reuse):
        model(input_ids=torch.zeros(1, 1, dtype=torch.long))


def test_a_frozen_request_is_untouched_by_a_slot_that_is_being_filled(
    model: nn.Module, handle: MiloraModel
) -> None:
    batch = batch_of([CLIPS[0], CLIPS[1]])
    with torch.no_grad():
        frozen = model(**batch.inputs).logits
        for layer in handle.layers:
            layer.b[0] = -torch.inf
        with handle.prefill([0, 2], **batch.routing):
            mixed = model(**batch.inputs).logits
    own = batch.prompt_mask[0]
    torch.testing.assert_close(mixed[0, own], frozen[0, own], rtol=1e-5, atol=1e-5)
