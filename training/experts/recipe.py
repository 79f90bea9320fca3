"""Every number of the experts' training in one place."""

from __future__ import annotations

from dataclasses import dataclass

from milora import (
    VIDEO_LLAMA_3_SPATIAL,
    VIDEO_LLAMA_3_TEMPORAL,
    GroupConfig,
    MiloraConfig,
)


@dataclass(frozen=True)
class ExpertRecipe:
    """How a domain's experts are trained. The defaults are those of the shipped adapters.

    Learning rates are peaks of a warm-up and cosine schedule over ``clips``; ``vision_lr_scale`` multiplies those of
    the spatial group's A and B. The loss is L_sum + ``frobenius`` * sum of squared norms + ``balance`` * balance.
    """

    domain: str
    seed: int = 11
    clips: int = 12_000
    experts: int = 4
    rank: int = 8
    lora_alpha: float = 16.0
    temperature: float = 1.0
    matrix_lr: float = 1.5e-2
    gate_lr: float = 2e-3
    fusion_lr: float = 2e-2
    vision_lr_scale: float = 0.3
    frobenius: float = 1e-6
    balance: float = 0.02
    warmup_steps: int = 30
    tokens_per_step: int = 4000  # text positions; decides how many clips a step has
    calibration_clips: int = 192
    prototype_clips: int = 400
    validation_clips: int = 100
    evaluate_every_clips: int = 4_000
    threads: int = 2
    renderers: int = 1

    def milora(self) -> MiloraConfig:
        """The groups: attention of the language model, and patch embedding with the vision tower's MLPs."""
        temporal = GroupConfig(
            VIDEO_LLAMA_3_TEMPORAL, self.experts, self.rank, self.lora_alpha, temperature=self.temperature
        )
        spatial = GroupConfig(
            VIDEO_LLAMA_3_SPATIAL, self.experts, self.rank, self.lora_alpha, temperature=self.temperature
        )
        return MiloraConfig(temporal=temporal, spatial=spatial)
