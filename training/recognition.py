"""What a domain's videos look like to the frozen vision tower: the mark by which ``auto`` recognizes it."""

from __future__ import annotations

import torch
from torch import Tensor

from training.backbone.forward import LanguageForward
from training.backbone.pixels import normalize
from training.backbone.rendering import Sample

SHRINKAGE = 0.02
"""How far the covariance is moved towards a sphere of the same mean variance: it must be invertible, and compressed
video must not fall off directions in which rendered clips hardly vary."""


@torch.no_grad()
def pooled_features(fast: LanguageForward, sample: Sample) -> Tensor:
    """The mean over all patches of a clip's features after the tower's last norm: (D,) float32."""
    pictures = fast.pictures(normalize(torch.from_numpy(sample.frames)))
    return fast.patch_features(pictures).float().mean((0, 1))


def recognition_mark(fast: LanguageForward, samples: list[Sample]) -> dict[str, Tensor]:
    """The Gaussian of the pooled features over clips of the demo world."""
    return gaussian(torch.stack([pooled_features(fast, sample) for sample in samples]))


def gaussian(features: Tensor) -> dict[str, Tensor]:
    """``mean`` (D,) and ``covariance`` (D, D), float32, of pooled features (N, D)."""
    covariance = torch.cov(features.T)
    sphere = covariance.diagonal().mean() * torch.eye(len(covariance))
    return {"mean": features.mean(0), "covariance": (1 - SHRINKAGE) * covariance + SHRINKAGE * sphere}
