"""The released weights of Video-LLaMA under our names.

What was released is three files and LLaMA: the trained parts (query tokens, frame positions, video Q-Former,
projection), BLIP-2's Q-Former with ``ln_vision``, and EVA-CLIP's tower. Each is read by the same table of names,
from the modules of DAMO-NLP-SG/Video-LLaMA and salesforce/LAVIS.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError

import torch
from torch import Tensor, nn

from milora.errors import StateMismatch

#: What Video-LLaMA trained, and so what its own checkpoint holds.
TRAINED_PARTS = ("video_query_tokens", "frame_position_embedding.", "video_qformer.", "projection.")
#: What BLIP-2's and EVA-CLIP's checkpoints hold; frozen in Video-LLaMA.
QFORMER_PARTS = ("query_tokens", "qformer.", "vision_model.post_layernorm.")
TOWER_PARTS = ("vision_model.embeddings.", "vision_model.encoder.")

_TOWER_LAYER = r"^(?:visual_encoder\.)?blocks\.(\d+)\."
_NAMES = (
    (r"^(?:visual_encoder\.)?cls_token$", "vision_model.embeddings.class_embedding"),
    (r"^(?:visual_encoder\.)?pos_embed$", "vision_model.embeddings.position_embedding"),
    (r"^(?:visual_encoder\.)?patch_embed\.proj\.", "vision_model.embeddings.patch_embedding."),
    (_TOWER_LAYER + r"norm(\d)\.", r"vision_model.encoder.layers.\1.layer_norm\2."),
    (_TOWER_LAYER + r"attn\.proj\.", r"vision_model.encoder.layers.\1.self_attn.projection."),
    (_TOWER_LAYER + r"attn\.", r"vision_model.encoder.layers.\1.self_attn."),
    (_TOWER_LAYER + r"mlp\.", r"vision_model.encoder.layers.\1.mlp."),
    (r"^ln_vision\.", "vision_model.post_layernorm."),
    (r"^Qformer\.bert\.", "qformer."),
    (r"^video_Qformer\.bert\.", "video_qformer."),
    (r"(qformer\.)embeddings\.LayerNorm\.", r"\1layernorm."),
    (r"(qformer\..*\.(?:cross)?attention\.)self\.", r"\1attention."),
    (r"^video_frame_position_embedding\.", "frame_position_embedding."),
    (r"^llama_proj\.", "projection."),
    (r"^llama_model\.", "language_model."),
)
#: What the files hold beside: buffers, the text half of a BERT that Video-LLaMA takes out, other branches' parts.
_LEFT_OUT = (
    r"position_ids$",
    r"rotary_emb\.inv_freq$",
    r"^(?:audio_|t5_|opt_|text_proj|vision_proj|itm_head|temp$)",
    r"ormer\.cls\.",
    r"ormer\.bert\.embeddings\.(?:word|position)_embeddings\.",
    r"ormer\.bert\.encoder\.layer\.\d+\.(?:intermediate|output)\.",
)


@dataclass(frozen=True)
class LoadReport:
    """Names of ours that a file filled, names of ours that it should have, and names of its own that we do not know."""

    loaded: tuple[str, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]


@torch.no_grad()
def load_original(model: nn.Module, path: str | Path, parts: tuple[str, ...] = TRAINED_PARTS) -> LoadReport:
    """Copy a released ``.pth`` into a `VideoLlamaForConditionalGeneration`; ``parts`` are what it should fill.

    Only plain tensors are read (``weights_only``): a file that would run code is refused.

    Raises:
        StateMismatch: it is no such file, or a tensor has another shape here. The model keeps what it had.
    """
    path = Path(path)
    tensors, sources = renamed(_read(path))
    own = model.state_dict()
    known = {name: tensor for name, tensor in tensors.items() if name in own}
    for name, tensor in known.items():
        if tensor.shape != own[name].shape:
            shapes = f"{tuple(tensor.shape)} in {path.name}, {tuple(own[name].shape)} here"
            raise StateMismatch(f"{name} is {shapes}")
    for name, tensor in known.items():
        own[name].copy_(tensor)
    expected = {name for name in own if name.startswith(parts)}
    return LoadReport(
        loaded=tuple(sorted(known)),
        missing=tuple(sorted(expected - set(known))),
        unexpected=tuple(sorted(sources[name] for name in tensors if name not in known)),
    )


def renamed(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The released tensors under our names, and the released name of each; what is left out on purpose is gone."""
    kept: dict[str, Tensor] = {}
    sources: dict[str, str] = {}
    for source, tensor in tensors.items():
        if any(re.search(pattern, source) for pattern in _LEFT_OUT):
            continue
        name = source
        for pattern, ours in _NAMES:
            name = re.sub(pattern, ours, name)
        kept[name], sources[name] = tensor, source
    for query in [name for name in kept if name.endswith(".self_attn.q_bias")]:
        layer = query.removesuffix("q_bias")
        if f"{layer}v_bias" in kept:  # EVA-CLIP has no bias on keys
            q, v = kept.pop(query), kept.pop(f"{layer}v_bias")
            kept[f"{layer}qkv.bias"] = torch.cat([q, torch.zeros_like(q), v])
            sources[f"{layer}qkv.bias"] = sources[query]
    return kept, sources


def _read(path: Path) -> Mapping[str, Tensor]:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (UnpicklingError, EOFError, RuntimeError) as error:
        raise StateMismatch(f"{path.name} is no checkpoint of plain tensors") from error
    tensors = content.get("model", content) if isinstance(content, Mapping) else None
    if not isinstance(tensors, Mapping) or not all(isinstance(value, Tensor) for value in tensors.values()):
        raise StateMismatch(f"{path.name} holds no named tensors")
    return tensors
