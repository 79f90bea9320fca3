"""Every architecture takes experts, trains them alone, swaps them and generates with them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from milora import (
    ARCHITECTURES,
    AdapterBank,
    AdapterState,
    Architecture,
    ConfigError,
    GroupConfig,
    MiloraConfig,
    MiloraModel,
    RoutingError,
    architecture,
    balance,
    frobenius,
    from_peft,
    inject,
    to_peft,
)
from tests.milora.clips import bytes_of, random_state
from tests.milora.hooked_adapter import hooked
from tests.milora.tiny_architectures import TINY, Tiny, Video

TOKENS = 5
SHAPE = {"experts": 3, "rank": 2, "lora_alpha": 12.0}

each_architecture = pytest.mark.parametrize("tiny", TINY, ids=lambda tiny: tiny.model_type)


def answered(tiny: Tiny, videos: Sequence[Video], answer: int = 4) -> tuple[dict[str, Tensor], Tensor]:
    """Inputs with an answer behind every prompt, and the labels of that answer."""
    inputs = tiny.inputs(videos, answer)
    labels = torch.full_like(inputs["input_ids"], -100)
    labels[:, -answer:] = inputs["input_ids"][:, -answer:]
    return inputs, labels


def generate(model: nn.Module, inputs: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Greedy token ids (V, TOKENS) by transformers' own loop, and the logits (V, TOKENS, vocabulary) behind them."""
    with torch.no_grad():
        out = model.generate(
            **inputs,
            max_new_tokens=TOKENS,
            min_new_tokens=TOKENS,
            do_sample=False,
            pad_token_id=0,
            return_dict_in_generate=True,
            output_logits=True,
        )
    return out.sequences[:, -TOKENS:], torch.stack(out.logits, 1)


def generate_with(
    model: nn.Module, handle: MiloraModel, inputs: dict[str, Tensor], slots: Sequence[int]
) -> tuple[Tensor, Tensor]:
    """The same with the adapters of these slots."""
    with handle.generation(slots, **architecture(model).routing(model.config, inputs)):
        return generate(model, inputs)


def states(tiny: Tiny, count: int) -> list[AdapterState]:
    """Adapters of random weights for the architecture."""
    config = architecture(tiny.model_type).config(**SHAPE)
    handle = inject(tiny.model(), config)
    return [random_state(handle, seed, config, a=seed - 1.5) for seed in range(1, count + 1)]


@each_architecture
def test_both_groups_find_their_layers(tiny: Tiny) -> None:
    model = tiny.model()
    spec = architecture(model)
    handle = inject(model, spec.config(**SHAPE))
    found = {group: [layer.name for layer in handle.layers_of(group)] for group in ("temporal", "spatial")}
    assert sum(name.endswith("_proj") and ".self_attn." in name for name in found["temporal"]) == 2 * 4
    assert sum("patch_emb" in name for name in found["spatial"]) == 1
    assert len(found["spatial"]) >= 1 + 2 * 2
    assert all(layer.rows == spec.rows_of(layer.name) for layer in handle.layers)


@each_architecture
def test_a_fresh_adapter_leaves_every_output_as_it_was(tiny: Tiny) -> None:
    model = tiny.model()
    inputs = tiny.inputs(tiny.videos(2))
    frozen = model(**inputs).logits
    handle = inject(model, architecture(model).config(**SHAPE))
    with handle.training_pass(**architecture(model).routing(model.config, inputs)) as routing:
        assert torch.equal(model(**inputs).logits, frozen)
    assert set(routing.gates) == set(range(len(handle.layers)))


@each_architecture
def test_training_lowers_the_loss_by_the_experts_alone(tiny: Tiny) -> None:
    model = tiny.model()
    content = bytes_of(model)
    spec = architecture(model)
    handle = inject(model, spec.config(**SHAPE))
    before = {name: tensor.clone() for name, tensor in handle.named_parameters()}
    inputs, labels = answered(tiny, tiny.videos(2))
    routing_of = spec.routing(model.config, inputs, labels)
    kinds = handle.trainable_parameters()
    optimizer = torch.optim.AdamW([parameter for kind in kinds.values() for parameter in kind], lr=2e-2)
    losses = []
    with handle.calibrate(), handle.training_pass(**routing_of):
        model(**inputs)
    for _ in range(8):
        with handle.training_pass(**routing_of) as routing:
            loss = model(**inputs, labels=labels).loss
        (loss + 1e-5 * frobenius(handle) + 1e-2 * balance(routing)).backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert all(torch.isfinite(torch.tensor(losses)))
    assert losses[-1] < losses[0] - 0.1
    assert bytes_of(model) == content
    assert all(parameter.grad is None for parameter in model.parameters())
    unmoved = [name for name, tensor in handle.named_parameters() if torch.equal(tensor, before[name])]
    assert unmoved == []


@each_architecture
def test_a_bfloat16_model_trains_float32_experts(tiny: Tiny) -> None:
    model = tiny.model().to(torch.bfloat16)
    spec = architecture(model)
    handle = inject(model, spec.config(**SHAPE), dtype=torch.float32)
    inputs, labels = answered(tiny, tiny.videos(2))
    routing = spec.routing(model.config, inputs, labels)
    halves = {name: x.bfloat16() if x.is_floating_point() else x for name, x in inputs.items()}
    with handle.training_pass(**routing):
        loss = model(**halves, labels=labels).loss
    loss.backward()
    assert torch.isfinite(loss)
    assert all(layer.B.grad.isfinite().all() and layer.B.grad.any() for layer in handle.layers)


@each_architecture
def test_gradients_with_checkpointing_are_those_without(tiny: Tiny) -> None:
    model = tiny.model()
    spec = architecture(model)
    handle = inject(model, spec.config(**SHAPE))
    handle.load_state(states(tiny, 1)[0])
    inputs, labels = answered(tiny, tiny.videos(2))

    def gradients() -> dict[str, Tensor]:
        handle.zero_grad()
        with handle.training_pass(**spec.routing(model.config, inputs, labels)):
            model(**inputs, labels=labels).loss.backward()
        return {name: tensor.grad.clone() for name, tensor in handle.named_parameters()}

    expected = gradients()
    model.activation_checkpointing_enable({"use_reentrant": False})
    model.train()  # layers are checkpointed in training mode only; nothing here drops out
    found = gradients()
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-4, atol=1e-5)


@each_architecture
def test_a_saved_adapter_generates_in_a_banks_slot_as_by_plain_hooks(tiny: Tiny, tmp_path: Path) -> None:
    (state,) = states(tiny, 1)
    video = tiny.videos(1)
    inputs = tiny.inputs(video)
    stock = tiny.model()
    with hooked(stock, state) as expected_gates:
        expected, expected_logits = generate(stock, inputs)
    _, frozen_logits = generate(stock, inputs)
    assert (expected_logits - frozen_logits).abs().max() > 1.0  # the adapter really speaks

    trained = inject(tiny.model(), architecture(tiny.model_type).config(**SHAPE))
    trained.load_state(state)
    exported = trained.export_state()
    config, tensors, gates = to_peft(exported, "tiny")
    save_file(tensors, tmp_path / "adapter_model.safetensors")
    save_file(gates, tmp_path / "gates.safetensors")
    loaded = from_peft(
        config,
        load_file(tmp_path / "adapter_model.safetensors"),
        load_file(tmp_path / "gates.safetensors"),
        exported.groups,
    )
    model = tiny.model()
    handle = inject(model, architecture(model).config(**SHAPE), slots=3)
    bank = AdapterBank(handle)
    with bank.pinned("domain", lambda: loaded) as slot:
        with handle.generation([slot], **architecture(model).routing(model.config, inputs)) as routing:
            tokens, logits = generate(model, inputs)
        record = handle.records(routing)[0].by_layer()
    assert torch.equal(tokens, expected)
    torch.testing.assert_close(logits, expected_logits, rtol=1e-4, atol=1e-4)
    assert set(record) == set(expected_gates)
    for name, gate in expected_gates.items():
        torch.testing.assert_close(record[name], gate, rtol=1e-4, atol=1e-5)


@each_architecture
def test_slot_0_generates_as_the_frozen_model(tiny: Tiny) -> None:
    model = tiny.model()
    inputs = tiny.inputs(tiny.videos(2))
    frozen, frozen_logits = generate(model, inputs)
    handle = inject(model, architecture(model).config(**SHAPE), slots=2)
    handle.load_state(states(tiny, 1)[0], 1)
    tokens, logits = generate_with(model, handle, inputs, [0, 0])
    assert torch.equal(tokens, frozen)
    assert torch.equal(logits, frozen_logits)


@each_architecture
def test_two_videos_of_different_adapters_in_one_batch_equal_each_alone(tiny: Tiny) -> None:
    model = tiny.model()
    handle = inject(model, architecture(model).config(**SHAPE), slots=2)
    for slot, state in enumerate(states(tiny, 2), start=1):
        handle.load_state(state, slot)
    videos = tiny.videos(3)
    tokens, logits = generate_with(model, handle, tiny.inputs(videos), [2, 1, 0])
    for row, (video, slot) in enumerate(zip(videos, [2, 1, 0], strict=True)):
        alone, alone_logits = generate_with(model, handle, tiny.inputs([video]), [slot])
        assert torch.equal(tokens[row], alone[0])
        torch.testing.assert_close(logits[row], alone_logits[0], rtol=1e-4, atol=1e-4)


def test_one_adapter_over_videos_of_different_lengths_pools_over_each_ones_own_frames() -> None:
    """The frames of a short video must not be told apart by position in a padded batch."""
    tiny = next(one for one in TINY if one.model_type == "smolvlm")
    model = tiny.model()
    handle = inject(model, architecture(model).config(**SHAPE))
    handle.load_state(states(tiny, 1)[0])
    videos = tiny.videos(2)
    inputs = tiny.inputs(videos)
    with (
        torch.no_grad(),
        handle.prefill([1, 1], **architecture(model).routing(model.config, inputs)) as routing,
    ):
        model(**inputs)
    together = handle.records(routing)
    for video, record in zip(videos, together, strict=True):
        own = tiny.inputs([video])
        with (
            torch.no_grad(),
            handle.prefill([1], **architecture(model).routing(model.config, own)) as routing,
        ):
            model(**own)
        torch.testing.assert_close(record.gates, handle.records(routing)[0].gates, rtol=1e-4, atol=1e-5)


def test_an_unknown_architecture_is_an_error_that_names_the_known_ones() -> None:
    with pytest.raises(
        ConfigError, match="no architecture is known for the model_type 'gpt2'; known are video_llama_3,"
    ):
        architecture("gpt2")
    with pytest.raises(ConfigError, match="model_type None"):
        architecture(nn.Linear(2, 2))


def test_every_architecture_is_tested() -> None:
    assert {tiny.model_type for tiny in TINY} == set(ARCHITECTURES)


def test_a_target_that_matches_no_module_is_named() -> None:
    tiny = next(one for one in TINY if one.model_type == "internvl")
    group = GroupConfig(("model.vision_model.nowhere",), **SHAPE)
    with pytest.raises(ConfigError, match=r"the spatial target .* matches no module"):
        inject(tiny.model(), MiloraConfig(spatial=group))


def test_a_target_whose_rows_are_unknown_is_refused_before_anything_is_touched() -> None:
    model = next(one for one in TINY if one.model_type == "video_llama_3").model()
    with pytest.raises(ConfigError, match="lm_head cannot be a target in video_llama_3"):
        inject(model, MiloraConfig(temporal=GroupConfig(("lm_head",), **SHAPE)))
    assert all(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        ([4, 3], r"patch_embedding: an input with leading dimensions \(8,\) is not of 7 frames"),
        ([4], "1 frame counts"),
    ],
)
def test_frames_that_do_not_add_up_are_an_error(frames: list[int], message: str) -> None:
    tiny = next(one for one in TINY if one.model_type == "llava_onevision")
    model = tiny.model()
    handle = inject(model, architecture(model).config(**SHAPE))
    inputs = tiny.inputs(tiny.videos(2))
    with (
        pytest.raises(RoutingError, match=message),
        handle.training_pass(prompt_mask=inputs["attention_mask"], frames=frames),
    ):
        model(**inputs)


@pytest.mark.parametrize("spec", ARCHITECTURES.values(), ids=lambda spec: spec.model_type)
def test_the_page_on_architectures_says_what_the_spec_says(spec: Architecture) -> None:
    page = (Path(__file__).parents[2] / "docs" / "architectures.md").read_text()
    (row,) = [line for line in page.splitlines() if line.startswith(f"| `{spec.model_type}` |")]
    temporal, spatial, layouts = row.split(" | ")[1:4]
    assert spelled_out(temporal) == set(spec.temporal)
    assert spelled_out(spatial) == set(spec.spatial)
    assert set(layouts.split(", ")) == {kind for _, kind in spec.rows}


def spelled_out(cell: str) -> set[str]:
    """The patterns of a cell, ``fc{1,2}`` as ``fc1`` and ``fc2``."""
    patterns = set()
    for pattern in re.findall(r"`([^`]+)`", cell):
        before, braces, behind = re.fullmatch(r"([^{]*)(?:\{(.*)\})?(.*)", pattern).groups()
        patterns |= {f"{before}{choice}{behind}" for choice in (braces or "").split(",")}
    return patterns
