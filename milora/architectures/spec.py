"""What has to be known of an architecture to put experts into it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from torch import Tensor

from milora.config import GroupConfig, MiloraConfig
from milora.errors import ConfigError
from milora.routing import Rows

Counts = Callable[[Any, Mapping[str, Tensor]], dict[str, Tensor]]
"""(config of the model, inputs of its forward) → ``patches`` or ``frames`` of every video."""


@dataclass(frozen=True)
class Architecture:
    """One architecture, named by the ``model_type`` of its config.

    ``temporal`` and ``spatial`` are the groups' targets. ``rows`` says how the rows of a module's input are laid
    out: (pattern, kind), the first pattern that matches a module's name counts. ``counts`` reads from a batch how
    many rows each video has. All patterns are `fnmatch` patterns over full module names. One video a prompt.
    """

    model_type: str
    temporal: tuple[str, ...]
    spatial: tuple[str, ...]
    rows: tuple[tuple[str, Rows], ...]
    counts: Counts

    def config(
        self,
        experts: int = 4,
        rank: int = 4,
        lora_alpha: float = 16.0,
        *,
        dropout: float = 0.0,
        temperature: float = 1.0,
    ) -> MiloraConfig:
        """Both groups with the same K, r and scale."""
        shape = {"experts": experts, "rank": rank, "lora_alpha": lora_alpha}
        extra = {"dropout": dropout, "temperature": temperature}
        return MiloraConfig(
            temporal=GroupConfig(self.temporal, **shape, **extra),
            spatial=GroupConfig(self.spatial, **shape, **extra),
        )

    def rows_of(self, module: str) -> Rows:
        """How the rows of a module's input are laid out.

        Raises:
            ConfigError: no pattern covers the module, so that its rows could not be told apart by video.
        """
        for pattern, kind in self.rows:
            if fnmatchcase(module, pattern):
                return kind
        covered = ", ".join(pattern for pattern, _ in self.rows)
        raise ConfigError(
            f"{module} cannot be a target in {self.model_type}: its rows are known in {covered} only"
        )

    def routing(
        self, model_config: Any, inputs: Mapping[str, Tensor], labels: Tensor | None = None
    ) -> dict[str, Tensor]:
        """What `training_pass`, `prefill` and `generation` ask of a batch: ``prompt_mask`` and the rows' counts.

        Args:
            model_config: the config of the model.
            inputs: what its forward takes, with ``input_ids`` and ``attention_mask`` (V, T).
            labels: (V, T) −100 wherever a token is no answer's; without them every token is the prompt's.
        """
        prompt = inputs["attention_mask"].bool()
        if labels is not None:
            prompt = prompt & (labels == -100)
        return {"prompt_mask": prompt, **self.counts(model_config, inputs)}


def frames_by_batch_row(model_config: Any, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Frames of videos of one length, ``pixel_values_videos`` (V, T, C, H, W)."""
    videos, frames = inputs["pixel_values_videos"].shape[:2]
    return {"frames": inputs["input_ids"].new_full((videos,), frames)}


def patches_by_grid(model_config: Any, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Patches of packed videos, ``video_grid_thw`` (V, 3)."""
    return {"patches": inputs["video_grid_thw"].prod(-1)}


def attention_of(layers: str) -> tuple[str, ...]:
    """The four projections of every self-attention of a language model whose layers are named so."""
    return tuple(f"{layers}.*.self_attn.{projection}_proj" for projection in "qkvo")
