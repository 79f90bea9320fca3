"""Random models have the shapes that they are named after, and answer with words."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from transformers import AutoModelForImageTextToText

from benchmarks.random_model import (
    SEVEN_B,
    SMALL,
    TWO_B,
    Shape,
    blank_tokens,
    model_config,
    random_adapter,
    random_backbone,
)
from benchmarks.subject import Subject
from milora import video_llama_3
from model_store.backbone import load_backbone
from model_store.backbone_ref import find_backbone
from tests.benchmarks.shapes import TINY


@pytest.mark.parametrize(("shape", "billions"), [(SMALL, 0.30), (TWO_B, 1.96), (SEVEN_B, 8.04)])
def test_a_shape_has_the_parameters_of_its_name(shape: Shape, billions: float) -> None:
    like = load_backbone(find_backbone("visum-demo", store=None)[1], device="cpu").model.config
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(model_config(like, shape), dtype=torch.bfloat16)
    assert sum(p.numel() for p in model.parameters()) / 1e9 == pytest.approx(billions, abs=0.015)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_it_is_the_same_model_every_time_in_the_precision_that_was_asked_for(
    subject: Subject, dtype: torch.dtype
) -> None:
    first, second = (random_backbone(subject.load(), TINY, dtype).model for _ in range(2))
    assert first.dtype == dtype
    for one, other in zip(first.parameters(), second.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


def test_tokens_that_say_nothing_are_never_the_likeliest(subject: Subject) -> None:
    backbone = random_backbone(subject.load(), replace(TINY, tied=False, vocabulary=300), torch.float32)
    blank = blank_tokens(backbone.processor.tokenizer, 300)
    states = torch.randn(50, TINY.hidden)
    best = backbone.model.lm_head(states).argmax(-1)
    assert not set(best.tolist()) & set(blank)
    assert {backbone.processor.tokenizer.eos_token_id, 299} <= set(blank)


def test_norms_stay_the_identity(subject: Subject) -> None:
    model = random_backbone(subject.load(), TINY, torch.float32).model
    assert torch.equal(model.model.language_model.norm.weight, torch.ones(TINY.hidden))


def test_an_adapter_is_random_in_every_part_and_leaves_the_model_alone(subject: Subject) -> None:
    backbone = random_backbone(subject.load(), TINY, torch.float32)
    before = {name: tensor.clone() for name, tensor in backbone.model.state_dict().items()}
    state = random_adapter(backbone, video_llama_3(4, 8, 16.0), seed=1)
    assert set(state.groups) == {"temporal", "spatial"}
    assert all(
        part.abs().sum() > 0 for layer in state.layers.values() for part in (layer.A, layer.B, layer.G)
    )
    for name, tensor in backbone.model.state_dict().items():
        assert torch.equal(tensor, before[name])
