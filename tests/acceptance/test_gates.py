"""Gates are real: the numbers of the service's JSON follow from the adapter's files and the layer's input."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import VideoLlama3ForConditionalGeneration

from model_store.backbone import Backbone
from model_store.registry import AdapterRegistry
from tests.acceptance.by_hand import ByHand
from tests.acceptance.clips import DOMAINS, Video
from tests.acceptance.in_process import prompt_of
from tests.acceptance.system import System
from tests.acceptance.variants import publish_first_expert

LAYERS = {
    "temporal": "model.language_model.layers.1.self_attn.v_proj",
    "spatial MLP": "model.vision_model.encoder.layers.1.mlp.fc1",
    "patch embedding": "model.vision_model.embeddings.patch_embedding",
}
CLOSE = 1e-4


@pytest.fixture(scope="module", params=DOMAINS)
def answered(
    request: pytest.FixtureRequest,
    alone: dict[Video, dict[str, Any]],
    registry: AdapterRegistry,
    backbone: Backbone,
) -> tuple[dict[str, Any], ByHand, str]:
    """For one video of a domain: the service's result, and the same video summarized by hand."""
    video = next(video for video in alone if video.domain == request.param)
    hand = ByHand.of(registry.get(video.domain, 1).path)
    return alone[video], hand, _summarize_by_hand(hand, backbone, video.path)


def _summarize_by_hand(hand: ByHand, backbone: Backbone, path: Path) -> str:
    """Greedy generation of stock transformers with the adapter of `hand`."""
    model = VideoLlama3ForConditionalGeneration.from_pretrained(backbone.path, dtype=torch.float32).eval()
    prompt = prompt_of(backbone, path)
    hand.attach(model)
    with torch.inference_mode():
        out = model.generate(
            input_ids=prompt.input_ids[None],
            attention_mask=torch.ones_like(prompt.input_ids)[None],
            pixel_values_videos=prompt.pixel_values,
            video_grid_thw=prompt.grid_thw,
            video_merge_sizes=prompt.merge_sizes,
            video_compression_mask=prompt.compression_mask,
            max_new_tokens=backbone.manifest.max_new_tokens,
            do_sample=False,
        )
    return backbone.processor.tokenizer.decode(out[0, prompt.tokens :], skip_special_tokens=True).strip()


def _gates(result: dict[str, Any]) -> dict[str, list[float]]:
    return {layer["name"]: layer["experts"] for layer in result["gates"]["layers"]}


@pytest.mark.parametrize("layer", LAYERS.values(), ids=LAYERS)
def test_a_layers_gate_recomputed_from_its_input_is_the_number_of_the_answer(
    answered: tuple[dict[str, Any], ByHand, str], layer: str
) -> None:
    result, hand, _ = answered
    np.testing.assert_allclose(_gates(result)[layer], hand.gate(layer), rtol=0, atol=CLOSE)


def test_every_gate_of_an_answer_is_the_one_recomputed(answered: tuple[dict[str, Any], ByHand, str]) -> None:
    result, hand, _ = answered
    reported = _gates(result)
    assert reported.keys() == hand.inputs.keys()
    for layer, experts in reported.items():
        np.testing.assert_allclose(experts, hand.gate(layer), rtol=0, atol=CLOSE, err_msg=layer)


def test_the_summary_is_the_one_that_the_adapters_files_and_stock_transformers_give(
    answered: tuple[dict[str, Any], ByHand, str],
) -> None:
    result, _, by_hand = answered
    assert result["summary"] == by_hand


@pytest.mark.parametrize("domain", DOMAINS)
def test_two_videos_of_one_domain_get_different_gates(
    alone: dict[Video, dict[str, Any]], domain: str
) -> None:
    one, other = (_gates(result) for video, result in alone.items() if video.domain == domain)
    differing = [layer for layer in one if np.abs(np.subtract(one[layer], other[layer])).max() > CLOSE]
    assert LAYERS["patch embedding"] in differing
    assert len(differing) > len(one) / 2


@pytest.mark.parametrize("domain", DOMAINS)
def test_gates_are_neither_uniform_nor_one_hot_everywhere(
    alone: dict[Video, dict[str, Any]], domain: str
) -> None:
    result = next(result for video, result in alone.items() if video.domain == domain)
    for group in ("temporal", "spatial"):
        experts = len(result["gates"][group]["experts"])
        assert 0.01 < result["gates"][group]["entropy"] < np.log(experts) - 1e-4


def test_the_single_expert_of_an_adapter_always_has_weight_one(
    system: System, registry: AdapterRegistry, video: Video
) -> None:
    publish_first_expert(system.model_store, registry.get(video.domain, 1), "soloist")
    gates = system.summarize(video.path, domain="soloist")["gates"]
    assert gates["layers"]
    assert all(layer["experts"] == [1.0] for layer in gates["layers"])
    for group in ("temporal", "spatial"):
        assert gates[group] == {"experts": [1.0], "entropy": 0.0}
