"""What is adapted, and by how many experts of which rank."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from milora.errors import ConfigError

GroupName = Literal["temporal", "spatial"]
FusionKind = Literal["learned", "fixed", "per_layer"]
GROUPS: tuple[GroupName, ...] = ("temporal", "spatial")


@dataclass(frozen=True)
class GroupConfig:
    """One group of adapted layers (γ in the equations).

    ``targets`` are `fnmatch` patterns over full module names; in an exported state they are the names
    themselves. Every layer holds ``experts`` (K) experts of ``rank`` (r), scaled by ``lora_alpha / rank``.
    ``temperature`` (τ) divides the gate's logits. ``dropout`` acts on the experts' input, in training only.
    ``top_k`` lets only so many experts of a layer speak for a video, 0 all of them.

    Raises:
        ConfigError: a count below one, a top_k above the number of experts, a temperature that is not
        positive, a dropout outside [0, 1).
    """

    targets: tuple[str, ...]
    experts: int
    rank: int
    lora_alpha: float
    dropout: float = 0.0
    temperature: float = 1.0
    top_k: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "targets", tuple(self.targets))
        if not self.targets:
            raise ConfigError("a group needs at least one target pattern")
        if self.experts < 1 or self.rank < 1:
            raise ConfigError(f"experts and rank start at 1, got {self.experts} and {self.rank}")
        if not 0 <= self.top_k <= self.experts:
            raise ConfigError(f"top_k lies between 0 and the {self.experts} experts, got {self.top_k}")
        if not self.temperature > 0:
            raise ConfigError(f"temperature must be positive, got {self.temperature}")
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"dropout must lie in [0, 1), got {self.dropout}")

    @property
    def rank_total(self) -> int:
        """R = K·r, the rank of the one LoRA that the K experts form."""
        return self.experts * self.rank

    @property
    def scale(self) -> float:
        """s = lora_alpha / r."""
        return self.lora_alpha / self.rank


@dataclass(frozen=True)
class MiloraConfig:
    """The groups of one adapter; a group that is ``None`` is not adapted.

    ``fusion`` says how α is had while training: one that is learned, ½ throughout ("fixed"), or one a layer. The
    last is folded into B on export, where one α for all is left, at ½.

    ``gate_input_gradient`` lets the loss reach the layers below through the gate's pooled input as well.
    Off by default: the gate then reads the features without steering them, and the backward pass saves
    one sweep over every adapted layer's input.

    Raises:
        ConfigError: neither group is present.
    """

    temporal: GroupConfig | None = None
    spatial: GroupConfig | None = None
    gate_input_gradient: bool = False
    fusion: FusionKind = "learned"

    def __post_init__(self) -> None:
        if self.temporal is None and self.spatial is None:
            raise ConfigError("at least one of the groups temporal and spatial is needed")

    @property
    def groups(self) -> dict[GroupName, GroupConfig]:
        """The groups that are present, temporal first."""
        present: dict[GroupName, GroupConfig] = {}
        if self.temporal is not None:
            present["temporal"] = self.temporal
        if self.spatial is not None:
            present["spatial"] = self.spatial
        return present
