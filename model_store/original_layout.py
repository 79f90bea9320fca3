"""The original VideoLLaMA3 checkpoints (DAMO-NLP-SG, remote-code model `videollama3_qwen2`) in native terms.

The two are one architecture under two sets of names: the same SigLIP tower with a Conv2d patch embedding and
2-D rotary positions, the same two-layer projector, the same Qwen2. Tensors are renamed and never changed.
What differs is where a setting is written, and the prompt: the original marks every frame by `<image>`, the
native processor expands one `<|video_pad|>` a video into the same text.
"""

from __future__ import annotations

from typing import Any

from model_store.backbone_ref import NATIVE_TYPE, ORIGINAL_TYPE
from model_store.errors import ConversionRefused

Json = dict[str, Any]

PREFIXES: tuple[tuple[str, str], ...] = (
    # The authors' own local-format script nests the tower twice; both spellings are in circulation.
    ("model.vision_encoder.vision_encoder.", "model.vision_model."),
    ("model.vision_encoder.", "model.vision_model."),
    ("model.mm_projector.", "model.projector."),
    ("model.embed_tokens.", "model.language_model.embed_tokens."),
    ("model.layers.", "model.language_model.layers."),
    ("model.norm.", "model.language_model.norm."),
    ("lm_head.", "lm_head."),
)
LM_HEAD = "lm_head.weight"
EMBEDDING = "model.language_model.embed_tokens.weight"
PROJECTOR = "mlp2x_gelu"

IMAGE_TOKEN, VIDEO_TOKEN = "<|image_pad|>", "<|video_pad|>"
IMAGE_MERGE, VIDEO_MERGE = 1, 2
MIN_TOKENS, MAX_TOKENS = 16, 16384
FPS, MAX_FRAMES = 1, 128

TEXT_KEYS = (
    "attention_dropout", "bos_token_id", "eos_token_id", "hidden_act", "hidden_size", "initializer_range",
    "intermediate_size", "max_position_embeddings", "max_window_layers", "num_attention_heads",
    "num_hidden_layers", "num_key_value_heads", "pad_token_id", "rms_norm_eps", "sliding_window",
    "tie_word_embeddings", "use_sliding_window", "vocab_size",
)  # fmt: skip
VISION_KEYS = (
    "attention_dropout", "hidden_act", "hidden_size", "intermediate_size", "layer_norm_eps",
    "num_attention_heads", "num_channels", "num_hidden_layers", "patch_size",
)  # fmt: skip
PIXEL_KEYS = (
    "do_convert_rgb", "do_normalize", "do_rescale", "do_resize", "image_mean", "image_std", "resample",
    "rescale_factor",
)  # fmt: skip

CHAT_TEMPLATE = """\
{%- if messages[0]['role'] != 'system' and (add_system_prompt is not defined or add_system_prompt) -%}
{{- '<|im_start|>system\\nYou are VideoLLaMA3 created by Alibaba DAMO Academy, a helpful assistant to help \
people understand images and videos.<|im_end|>\\n' -}}
{%- endif -%}
{%- for message in messages -%}
{{- '<|im_start|>' + message['role'] + '\\n' -}}
{%- if message['content'] is string -%}
{{- message['content'] -}}
{%- else -%}
{%- for part in message['content'] -%}
{%- if part is string -%}
{{- part -}}
{%- elif part['type'] == 'text' -%}
{{- part['text'] -}}
{%- elif part['type'] == 'image' -%}
{{- '<|image_pad|>\\n' -}}
{%- elif part['type'] == 'video' -%}
{{- '<|video_pad|>\\n' -}}
{%- endif -%}
{%- endfor -%}
{%- endif -%}
{{- '<|im_end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{- '<|im_start|>assistant\\n' -}}
{%- endif -%}
"""


def native_name(name: str) -> str | None:
    """The native name of an original tensor; None for a tensor that has no place."""
    for prefix, replacement in PREFIXES:
        if name.startswith(prefix):
            return replacement + name.removeprefix(prefix)
    return None


def native_config(original: Json, token_ids: dict[str, int]) -> Json:
    """`config.json` of the native model.

    Args:
        original: the original's `config.json`.
        token_ids: ids of the tokenizer's special tokens.

    Raises:
        ConversionRefused: another model, another projector, or a tokenizer without the visual tokens.
    """
    model_type = original.get("model_type")
    if model_type == NATIVE_TYPE:
        raise ConversionRefused("the checkpoint is in the native layout already and needs no conversion")
    if model_type != ORIGINAL_TYPE:
        raise ConversionRefused(f"model_type is {model_type!r}, not {ORIGINAL_TYPE!r}")
    if original.get("mm_projector_type") != PROJECTOR:
        raise ConversionRefused(
            f"mm_projector_type is {original.get('mm_projector_type')!r}, not {PROJECTOR!r}"
        )
    vision = original.get("vision_encoder_config")
    if not isinstance(vision, dict):
        raise ConversionRefused(
            "config.json has no vision_encoder_config: the vision tower is not part of it"
        )
    absent = [token for token in (IMAGE_TOKEN, VIDEO_TOKEN) if token not in token_ids]
    if absent:
        raise ConversionRefused(f"the tokenizer has no {' and no '.join(absent)}")
    text = {key: original[key] for key in TEXT_KEYS if key in original}
    config: Json = {
        "architectures": ["VideoLlama3ForConditionalGeneration"],
        "model_type": NATIVE_TYPE,
        "image_token_id": token_ids[IMAGE_TOKEN],
        "video_token_id": token_ids[VIDEO_TOKEN],
        "tie_word_embeddings": bool(original.get("tie_word_embeddings", False)),
        "text_config": {"model_type": "qwen2", **text, "rope_parameters": _rope(original), "use_cache": True},
        "vision_config": {
            "model_type": "video_llama_3_vision",
            **{key: vision[key] for key in VISION_KEYS if key in vision},
        },
    }
    if dtype := original.get("dtype") or original.get("torch_dtype"):
        config["dtype"] = dtype
    return config


def native_processor(original: Json, preprocessor: Json, processor: Json) -> Json:
    """`processor_config.json` of the native processor, from the original's three settings files.

    The original bounds a picture by tokens, each (patch x merge) pixels square, the native one by pixels. The
    bounds come out the same; for a video both mean all of its frames together.
    """
    patch = preprocessor.get("patch_size", original["vision_encoder_config"].get("patch_size", 14))
    pixels = {key: preprocessor[key] for key in PIXEL_KEYS if preprocessor.get(key) is not None}
    bounds = (preprocessor.get("min_tokens", MIN_TOKENS), preprocessor.get("max_tokens", MAX_TOKENS))

    def scaled(merge: int) -> Json:
        shortest, longest = (tokens * (patch * merge) ** 2 for tokens in bounds)
        size = {"shortest_edge": shortest, "longest_edge": longest}
        return {**pixels, "patch_size": patch, "temporal_patch_size": 1, "merge_size": merge, "size": size}

    return {
        "processor_class": "VideoLlama3Processor",
        "image_processor": {
            "image_processor_type": "VideoLlama3ImageProcessor",
            **scaled(processor.get("image_merge_size", IMAGE_MERGE)),
        },
        "video_processor": {
            "video_processor_type": "VideoLlama3VideoProcessor",
            **scaled(processor.get("video_merge_size", VIDEO_MERGE)),
            "use_token_compression": bool(original.get("use_token_compression", True)),
            "max_frames": processor.get("max_frames", MAX_FRAMES),
            "do_sample_frames": False,
        },
    }


def special_token_ids(tokenizer: Json, settings: Json, added: Json) -> dict[str, int]:
    """Ids of the added tokens, from `tokenizer.json`, `tokenizer_config.json` and `added_tokens.json`."""
    found = {token: index for token, index in added.items() if isinstance(index, int)}
    for index, token in settings.get("added_tokens_decoder", {}).items():
        found[token["content"]] = int(index)
    for token in tokenizer.get("added_tokens", []):
        found[token["content"]] = int(token["id"])
    return found


def native_tokenizer_settings(settings: Json) -> Json:
    """`tokenizer_config.json` without what names the remote code; the chat template has a file of its own."""
    dropped = ("auto_map", "chat_template", "processor_class")
    return {key: value for key, value in settings.items() if key not in dropped}


def _rope(original: Json) -> Json:
    scaling = dict(original.get("rope_scaling") or {})
    kind = scaling.pop("rope_type", None) or scaling.pop("type", None) or "default"
    return {"rope_type": kind, "rope_theta": original.get("rope_theta", 10000.0), **scaling}
