"""Rows that cannot be told apart by video are an error, never a guess."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from milora import RoutingError, inject
from tests.milora.clips import CONFIG, batch_of, clip


@pytest.fixture
def handle(model: nn.Module):
    return inject(model, CONFIG)


def test_patch_counts_must_be_one_a_video(handle) -> None:
    with pytest.raises(RoutingError, match="3 patch counts for 2 videos"):
        handle.route([1, 1], patches=[4, 4, 4])


def test_a_video_without_patches_is_refused(handle) -> None:
    with pytest.raises(RoutingError, match="at least one patch"):
        handle.route([1, 1], patches=[4, 0])


def test_a_prompt_mask_must_have_a_row_a_video(handle) -> None:
    with pytest.raises(RoutingError, match=r"prompt_mask is \(3, 7\), expected \(2, T\)"):
        handle.route([1, 1], prompt_mask=torch.ones(3, 7))


def test_a_video_without_a_prompt_token_is_refused(handle) -> None:
    with pytest.raises(RoutingError, match="no prompt token"):
        handle.route([1, 1], prompt_mask=torch.tensor([[1, 1], [0, 0]]))


def test_a_pass_without_videos_is_refused(handle) -> None:
    with pytest.raises(RoutingError, match="at least one video"):
        handle.route([])


@pytest.mark.parametrize("slot", [-1, 2])
def test_a_slot_that_does_not_exist_is_refused(handle, slot: int) -> None:
    with pytest.raises(RoutingError, match="do not exist, the model has 1 to 1"):
        handle.route([slot])


def test_a_forward_that_does_not_match_the_routing_names_the_layer(model: nn.Module, handle) -> None:
    batch = batch_of([clip(2, 5, seed=1), clip(3, 4, seed=2)])
    with (
        pytest.raises(RoutingError, match=r"patch_embedding: an input with leading dimensions \(80,\)"),
        handle.prefill([1, 1], prompt_mask=batch.prompt_mask, patches=[32, 32]),
    ):
        model(**batch.inputs)
    with (
        pytest.raises(RoutingError, match=r"layers\.0\.self_attn\.q_proj: an input with leading"),
        handle.prefill([1, 1], prompt_mask=batch.prompt_mask[:, 1:], patches=batch.patches),
    ):
        model(**batch.inputs)
