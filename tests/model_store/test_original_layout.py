"""The published checkpoints' own configurations, by names and shapes alone (no weights are needed)."""

from __future__ import annotations

from typing import Any

import pytest

from model_store.convert import expected_shapes
from model_store.original_layout import native_config, native_name, native_processor
from tests.model_store.original_checkpoint import original_names

TOWER_LAYERS, LANGUAGE_LAYERS = 27, 28
TOKENS = {"<|image_pad|>": 151655, "<|video_pad|>": 151656}


def published(size: str) -> dict[str, Any]:
    """The facts of `DAMO-NLP-SG/VideoLLaMA3-2B` and `-7B`."""
    sizes = {
        "2B": {
            "hidden_size": 1536,
            "intermediate_size": 8960,
            "num_attention_heads": 12,
            "num_key_value_heads": 2,
            "tie_word_embeddings": True,
            "vocab_size": 151936,
        },
        "7B": {
            "hidden_size": 3584,
            "intermediate_size": 18944,
            "num_attention_heads": 28,
            "num_key_value_heads": 4,
            "tie_word_embeddings": False,
            "vocab_size": 152064,
        },
    }
    return {
        "attention_dropout": 0.0,
        "bos_token_id": 151643,
        "eos_token_id": 151645,
        "hidden_act": "silu",
        "image_token_index": 151665,
        "initializer_range": 0.02,
        "max_position_embeddings": 32768,
        "mm_projector_type": "mlp2x_gelu",
        "model_type": "videollama3_qwen2",
        "num_hidden_layers": LANGUAGE_LAYERS,
        "rms_norm_eps": 1e-06,
        "rope_scaling": None,
        "rope_theta": 1000000.0,
        "sliding_window": None,
        "torch_dtype": "bfloat16",
        "use_sliding_window": False,
        "use_token_compression": True,
        "vision_encoder_config": {
            "hidden_size": 1152,
            "intermediate_size": 4304,
            "num_attention_heads": 16,
            "num_hidden_layers": TOWER_LAYERS,
            "patch_size": 14,
        },
        **sizes[size],
    }


@pytest.mark.parametrize("size", ["2B", "7B"])
def test_the_published_models_map_one_to_one_onto_the_native_names(size: str) -> None:
    original = published(size)
    names = original_names(TOWER_LAYERS, LANGUAGE_LAYERS, tied=original["tie_word_embeddings"])
    shapes = expected_shapes(native_config(original, TOKENS))
    assert {native_name(name) for name in names} == set(shapes)


def test_the_patch_embedding_stays_a_convolution() -> None:
    shapes = expected_shapes(native_config(published("2B"), TOKENS))
    assert shapes["model.vision_model.embeddings.patch_embedding.weight"] == (1152, 3, 14, 14)


def test_the_rotary_base_and_the_stored_dtype_are_carried_over() -> None:
    config = native_config(published("7B"), TOKENS)
    assert config["text_config"]["rope_parameters"] == {"rope_type": "default", "rope_theta": 1000000.0}
    assert config["dtype"] == "bfloat16"


def test_rotary_scaling_is_carried_over() -> None:
    scaled = published("7B") | {"rope_scaling": {"type": "linear", "factor": 2.0}}
    rope = native_config(scaled, TOKENS)["text_config"]["rope_parameters"]
    assert rope == {"rope_type": "linear", "rope_theta": 1000000.0, "factor": 2.0}


def test_visual_tokens_are_those_of_the_tokenizer() -> None:
    config = native_config(published("2B"), TOKENS)
    assert (config["image_token_id"], config["video_token_id"]) == (151655, 151656)


def test_without_settings_of_its_own_the_processor_gets_the_originals_defaults() -> None:
    video = native_processor(published("2B"), {}, {})["video_processor"]
    assert video["size"] == {"shortest_edge": 16 * 28 * 28, "longest_edge": 16384 * 28 * 28}
    assert (video["patch_size"], video["merge_size"], video["max_frames"]) == (14, 2, 128)
    assert video["use_token_compression"]


@pytest.mark.parametrize("name", ["model.rotary_emb.inv_freq", "vision_encoder.x", "model.layersx.0", ""])
def test_a_name_of_neither_layout_has_no_place(name: str) -> None:
    assert native_name(name) is None
