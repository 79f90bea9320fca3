"""What a domain's videos look like to the frozen vision tower: the mark by which ``auto`` recognizes it."""

from __future__ import annotations

import torch
from torch import Tensor

from training.backbone.forward import FastForward
from training.backbone.pixels import normalize, patchify
from training.backbone.rendering import Sample


@torch.no_grad()
def pooled_features(fast: FastForward, sample: Sample) -> Tensor:
    """The mean over all patches of a clip's features after the tower's last norm: (D,) float32."""
    patches = patchify(normalize(torch.from_numpy(sample.frames)))
    return fast.patch_features(patches).float().mean((0, 1))


def prototype(fast: FastForward, samples: list[Sample]) -> dict[str, Tensor]:
    """Mean and standard deviation of the pooled features over clips, each (D,) float32."""
    features = torch.stack([pooled_features(fast, sample) for sample in samples])
    return {"mean": features.mean(0), "std": features.std(0).clamp_min(1e-4)}
