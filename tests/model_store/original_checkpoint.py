"""A tiny model written as DAMO-NLP-SG writes VideoLLaMA3, by a table of names that is written out by hand.

The table is on purpose not derived from the converter's own rules: it lists module for module what the
original's remote code calls things.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from tests.tiny_backbone import PATCH_SIZE, tiny_config, tiny_model, tiny_processor

LAYERS = 2
TOWER_MODULES = (
    "layer_norm1", "layer_norm2", "mlp.fc1", "mlp.fc2", "self_attn.q_proj", "self_attn.k_proj",
    "self_attn.v_proj", "self_attn.out_proj",
)  # fmt: skip
LANGUAGE_TENSORS = (
    "input_layernorm.weight", "post_attention_layernorm.weight", "mlp.gate_proj.weight", "mlp.up_proj.weight",
    "mlp.down_proj.weight", "self_attn.q_proj.weight", "self_attn.q_proj.bias", "self_attn.k_proj.weight",
    "self_attn.k_proj.bias", "self_attn.v_proj.weight", "self_attn.v_proj.bias", "self_attn.o_proj.weight",
)  # fmt: skip

ORIGINAL_TEMPLATE = "{% for message in messages %}{{ image_token }}{% endfor %}"


def original_names(
    tower_layers: int = LAYERS, language_layers: int = LAYERS, *, tied: bool = True
) -> dict[str, str]:
    """Original name → native name of every tensor."""
    table = {
        "model.embed_tokens.weight": "model.language_model.embed_tokens.weight",
        "model.norm.weight": "model.language_model.norm.weight",
    }
    if not tied:
        table["lm_head.weight"] = "lm_head.weight"
    for end in ("weight", "bias"):
        table |= {
            f"model.vision_encoder.embeddings.patch_embedding.{end}": (
                f"model.vision_model.embeddings.patch_embedding.{end}"
            ),
            f"model.vision_encoder.post_layernorm.{end}": f"model.vision_model.post_layernorm.{end}",
            f"model.mm_projector.readout.0.{end}": f"model.projector.readout.0.{end}",
            f"model.mm_projector.readout.2.{end}": f"model.projector.readout.2.{end}",
        }
        for index in range(tower_layers):
            for module in TOWER_MODULES:
                name = f"encoder.layers.{index}.{module}.{end}"
                table[f"model.vision_encoder.{name}"] = f"model.vision_model.{name}"
    for index in range(language_layers):
        for tensor in LANGUAGE_TENSORS:
            table[f"model.layers.{index}.{tensor}"] = f"model.language_model.layers.{index}.{tensor}"
    return table


def original_config(*, tied: bool = True) -> dict[str, Any]:
    """`config.json` in the original's flat form, for the sizes of the tiny model."""
    native = tiny_config(tied=tied)
    text, vision = native.text_config, native.vision_config
    return {
        "architectures": ["Videollama3Qwen2ForCausalLM"],
        "auto_map": {"AutoModelForCausalLM": "modeling_videollama3.Videollama3Qwen2ForCausalLM"},
        "attention_dropout": 0.0,
        "bos_token_id": text.bos_token_id,
        "eos_token_id": text.eos_token_id,
        "hidden_act": "silu",
        "hidden_size": text.hidden_size,
        "image_token_index": 151665,
        "initializer_range": 0.02,
        "intermediate_size": text.intermediate_size,
        "max_position_embeddings": text.max_position_embeddings,
        "max_window_layers": 21,
        "mm_projector_type": "mlp2x_gelu",
        "model_type": "videollama3_qwen2",
        "num_attention_heads": text.num_attention_heads,
        "num_hidden_layers": text.num_hidden_layers,
        "num_key_value_heads": text.num_key_value_heads,
        "rms_norm_eps": text.rms_norm_eps,
        "rope_scaling": None,
        "rope_theta": 10000.0,
        "sliding_window": None,
        "tie_word_embeddings": tied,
        "torch_dtype": "float32",
        "transformers_version": "4.46.3",
        "use_cache": False,
        "use_sliding_window": False,
        "use_token_compression": False,
        "vision_encoder": None,
        "vision_encoder_config": {
            "hidden_size": vision.hidden_size,
            "intermediate_size": vision.intermediate_size,
            "model_type": "videollama3_vision_encoder",
            "num_attention_heads": vision.num_attention_heads,
            "num_hidden_layers": vision.num_hidden_layers,
            "patch_size": vision.patch_size,
        },
        "vocab_size": text.vocab_size,
    }


def original_state(*, tied: bool = True, seed: int = 0) -> dict[str, torch.Tensor]:
    """The tiny model's tensors under the original's names."""
    state = tiny_model(seed=seed, tied=tied).state_dict()
    return {original: state[native].clone() for original, native in original_names(tied=tied).items()}


def write_original(
    folder: Path, state: dict[str, torch.Tensor], *, tied: bool = True, shards: int = 1
) -> Path:
    """Write a checkpoint folder as the original's authors publish it."""
    folder.mkdir(parents=True)
    _write_weights(folder, state, shards)
    tiny_processor().tokenizer.save_pretrained(folder)
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    settings |= {"processor_class": "Videollama3Qwen2Processor", "chat_template": ORIGINAL_TEMPLATE}
    preprocessor = {
        "auto_map": {"AutoImageProcessor": "image_processing_videollama3.Videollama3ImageProcessor"},
        "image_processor_type": "Videollama3ImageProcessor",
        "processor_class": "Videollama3Qwen2Processor",
        "do_convert_rgb": True,
        "do_normalize": True,
        "do_rescale": True,
        "do_resize": True,
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
        "max_tokens": 4096,
        "min_tokens": 1,
        "patch_size": PATCH_SIZE,
        "resample": 3,
        "rescale_factor": 1 / 255,
    }
    for name, content in {
        "config.json": original_config(tied=tied),
        "tokenizer_config.json": settings,
        "preprocessor_config.json": preprocessor,
        "chat_template.json": {"chat_template": ORIGINAL_TEMPLATE},
        "generation_config.json": {"do_sample": True, "temperature": 0.7, "top_p": 0.9, "eos_token_id": 258},
    }.items():
        (folder / name).write_text(json.dumps(content))
    return folder


def _write_weights(folder: Path, state: dict[str, torch.Tensor], shards: int) -> None:
    if shards == 1:
        save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
        return
    weight_map: dict[str, str] = {}
    names = sorted(state)
    for number in range(shards):
        file = f"model-{number + 1:05d}-of-{shards:05d}.safetensors"
        held = names[number::shards]
        save_file({name: state[name] for name in held}, folder / file, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(held, file)
    index = {"metadata": {"total_size": 0}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
