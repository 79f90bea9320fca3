"""Experts go beside a model's layers and come out again without a trace."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from milora import (
    ConfigError,
    GroupConfig,
    MiloraConfig,
    MiloraError,
    UnsupportedLayer,
    inject,
    video_llama_3,
)
from tests.milora.clips import CONFIG, batch_of, bytes_of, clip, random_state


def test_every_target_of_video_llama_3_is_found(model: nn.Module) -> None:
    handle = inject(model, video_llama_3())
    temporal = [layer.name for layer in handle.layers_of("temporal")]
    spatial = [layer.name for layer in handle.layers_of("spatial")]
    assert len(temporal) == 2 * 4
    assert len(spatial) == 1 + 2 * 2
    assert spatial[0] == "model.vision_model.embeddings.patch_embedding"


def test_a_fresh_adapter_leaves_the_output_as_it_was(model: nn.Module) -> None:
    batch = batch_of([clip(2, 5, seed=1), clip(3, 4, seed=2)])
    before = model(**batch.inputs).logits
    handle = inject(model, CONFIG)
    with handle.training_pass(**batch.routing):
        assert torch.equal(model(**batch.inputs).logits, before)


def test_outside_a_pass_the_model_is_the_frozen_base(model: nn.Module) -> None:
    batch = batch_of([clip(2, 5, seed=1)])
    before = model(**batch.inputs).logits
    handle = inject(model, CONFIG)
    handle.load_state(random_state(handle, seed=1))
    assert torch.equal(model(**batch.inputs).logits, before)


def test_a_pass_that_fails_leaves_no_routing_behind(model: nn.Module) -> None:
    handle = inject(model, CONFIG)
    with pytest.raises(KeyError), handle.prefill([1], patches=[16]):
        raise KeyError
    assert handle.routing is None


def test_removal_gives_back_the_very_same_model(model: nn.Module) -> None:
    batch = batch_of([clip(2, 5, seed=1), clip(3, 4, seed=2)])
    modules, content = dict(model.named_modules()), bytes_of(model)
    logits = model(**batch.inputs).logits
    model.lm_head.weight.requires_grad_(True)
    handle = inject(model, CONFIG)
    handle.load_state(random_state(handle, seed=1))
    with handle.prefill([1, 1], **batch.routing):
        assert not torch.equal(model(**batch.inputs).logits, logits)
        handle.remove()
        assert torch.equal(model(**batch.inputs).logits, logits)
    assert dict(model.named_modules()) == modules
    assert bytes_of(model) == content
    assert model.lm_head.weight.requires_grad
    assert not any(module._forward_hooks for module in model.modules())


def test_names_and_tensors_of_an_injected_model_are_the_base_models(model: nn.Module) -> None:
    content = bytes_of(model)
    inject(model, CONFIG, slots=4)
    assert bytes_of(model) == content
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_the_same_seed_draws_the_same_experts(model: nn.Module) -> None:
    first = inject(model, CONFIG, seed=3)
    again = inject(model, CONFIG, seed=3)
    other = inject(model, CONFIG, seed=4)
    assert torch.equal(first.layers[2].A, again.layers[2].A)
    assert not torch.equal(first.layers[2].A, other.layers[2].A)


@pytest.mark.parametrize(
    ("layer", "kind"),
    [
        (nn.LayerNorm(4), "LayerNorm"),
        (nn.Embedding(4, 4), "Embedding"),
        (nn.Conv1d(4, 4, 1), "Conv1d"),
        (nn.ConvTranspose2d(4, 4, 1), "ConvTranspose2d"),
        (nn.Conv2d(4, 4, 1, groups=2), "Conv2d with groups=2"),
        (nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect"), "padding_mode='reflect'"),
    ],
)
def test_an_unsupported_layer_is_named_and_nothing_is_touched(layer: nn.Module, kind: str) -> None:
    model = nn.ModuleDict({"good": nn.Linear(4, 4), "odd": layer})
    config = MiloraConfig(temporal=GroupConfig(("good", "odd"), 2, 2, 4.0))
    with pytest.raises(UnsupportedLayer, match=rf"odd is a .*{kind}"):
        inject(model, config)
    assert not model["good"]._forward_hooks
    assert model["good"].weight.requires_grad


def test_a_pattern_without_a_match_is_an_error(model: nn.Module) -> None:
    config = MiloraConfig(temporal=GroupConfig(("model.nowhere.*",), 2, 2, 4.0))
    with pytest.raises(ConfigError, match=r"'model\.nowhere\.\*' matches no module"):
        inject(model, config)


def test_a_layer_cannot_be_in_both_groups(model: nn.Module) -> None:
    group = GroupConfig(("model.language_model.layers.0.self_attn.q_proj",), 2, 2, 4.0)
    with pytest.raises(ConfigError, match="q_proj is a target of both groups"):
        inject(model, MiloraConfig(temporal=group, spatial=group))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"experts": 0}, "start at 1"),
        ({"rank": 0}, "start at 1"),
        ({"temperature": 0.0}, "temperature must be positive"),
        ({"dropout": 1.0}, "dropout must lie in"),
        ({"targets": ()}, "at least one target"),
    ],
)
def test_a_group_that_cannot_be_is_refused(change: dict[str, object], message: str) -> None:
    fields = {"targets": ("q_proj",), "experts": 2, "rank": 2, "lora_alpha": 4.0} | change
    with pytest.raises(ConfigError, match=message):
        GroupConfig(**fields)


def test_a_config_without_groups_is_refused() -> None:
    with pytest.raises(ConfigError, match="at least one of the groups"):
        MiloraConfig()


def test_a_loaded_adapter_cannot_be_calibrated_again(model: nn.Module) -> None:
    handle = inject(model, CONFIG)
    handle.load_state(random_state(handle, seed=1))
    with pytest.raises(MiloraError, match="keeps the standardization"), handle.calibrate():
        pass


def test_calibration_needs_more_than_one_video(model: nn.Module) -> None:
    handle = inject(model, CONFIG)
    batch = batch_of([clip(2, 5, seed=1)])
    one_video = handle.route([1], **batch.routing)
    with pytest.raises(MiloraError, match="saw 1 videos"), handle.calibrate(), handle.use(one_video):
        model(**batch.inputs)
