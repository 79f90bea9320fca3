"""The architectures that experts can be put into, by the ``model_type`` of a model's config.

One file each; a new one is a file with an `Architecture` and its name in the list below. Modules of a model that
`transformers` does not have are in the ``modeling_*`` files, which nothing here imports.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from milora.architectures.internvl import INTERNVL
from milora.architectures.llava_onevision import LLAVA_ONEVISION
from milora.architectures.qwen2_5_vl import QWEN2_5_VL
from milora.architectures.smolvlm import SMOLVLM
from milora.architectures.spec import Architecture
from milora.architectures.video_llama import VIDEO_LLAMA
from milora.architectures.video_llama_3 import VIDEO_LLAMA_3
from milora.architectures.videollama2 import VIDEOLLAMA2
from milora.errors import ConfigError

ARCHITECTURES: Mapping[str, Architecture] = {
    one.model_type: one
    for one in (VIDEO_LLAMA_3, VIDEO_LLAMA, VIDEOLLAMA2, SMOLVLM, QWEN2_5_VL, LLAVA_ONEVISION, INTERNVL)
}


def architecture(model: nn.Module | str) -> Architecture:
    """The architecture of a model, or of a ``model_type``.

    Raises:
        ConfigError: it is none of those that are known.
    """
    found = find_architecture(model)
    if found is None:
        name = model if isinstance(model, str) else _model_type(model)
        known = ", ".join(ARCHITECTURES)
        raise ConfigError(f"no architecture is known for the model_type {name!r}; known are {known}")
    return found


def find_architecture(model: nn.Module | str) -> Architecture | None:
    """The same, ``None`` where it is unknown."""
    return ARCHITECTURES.get(model if isinstance(model, str) else _model_type(model) or "")


def _model_type(model: nn.Module) -> str | None:
    return getattr(getattr(model, "config", None), "model_type", None)


__all__ = ["ARCHITECTURES", "Architecture", "architecture", "find_architecture"]
