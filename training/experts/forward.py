"""The training forward pass with experts: the backbone's fast pass where modules carry adapters.

Experts add to the *output of modules* and their gates pool over whole prompts, so the patch embedding is called as a
module and the last layer is computed for every position.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from training.backbone.forward import FastForward, LanguageForward, rms_norm, vision_rope
from training.backbone.sampling import PATCH, PATCHES_PER_FRAME
from training.backbone.videollama2 import VideoLlama2Forward


class _WholePrompts(LanguageForward):
    """The language model's half with injected experts; call it under the adapter's routing."""

    def hidden(self, x: Tensor, kept: int) -> Tensor:
        """Normalized last hidden states ``(B, kept, C)`` of the last ``kept`` positions of ``(B, N, C)``."""
        length = x.shape[1]
        cos, sin = self.text_tables(length)
        mask = torch.full((length, length), float("-inf"), dtype=self.dtype).triu(1)
        for layer in self.text.layers:
            x = self.text_layer(layer, x, cos, sin, mask)
        return rms_norm(self.text.norm, x[:, -kept:])


class AdaptedForward(_WholePrompts, FastForward):
    """The pass over a `video_llama_3` with injected experts."""

    def patch_features(self, pictures: Tensor) -> Tensor:
        """``(F, 48, 192)`` patches to ``(F, 48, 128)`` features after the tower's last norm."""
        config = self.vision.config
        squares = pictures.reshape(-1, 3, PATCH, PATCH).to(self.dtype)
        x = self.vision.embeddings.patch_embedding(squares).view(-1, PATCHES_PER_FRAME, config.hidden_size)
        head = config.hidden_size // config.num_attention_heads
        cos, sin = (t.to(self.dtype) for t in vision_rope(head, config.rope_parameters["rope_theta"]))
        for layer in self.vision.encoder.layers:
            x = self.vision_layer(layer, x, cos, sin)
        return self.vision.post_layernorm(x)


class AdaptedVideoLlama2Forward(_WholePrompts, VideoLlama2Forward):
    """The pass over a `videollama2` with injected experts; tower and connector call their modules anyway."""


_ADAPTED = {"video_llama_3": AdaptedForward, "videollama2": AdaptedVideoLlama2Forward}


def adapted_forward(model: nn.Module) -> LanguageForward:
    """The pass for a model of any design."""
    return _ADAPTED[model.config.model_type](model)
