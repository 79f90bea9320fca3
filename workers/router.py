"""`auto`: which domain a video belongs to, by what the frozen vision tower sees in it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch

from model_store.manifest import GENERAL_DOMAIN

SHARPNESS = 10.0
"""Nats a dimension are averaged, which keeps scores of different backbones alike; this spreads them out again."""


@dataclass(frozen=True)
class Route:
    """The domain that was chosen and the score of every candidate; scores sum to one."""

    selected: str
    scores: dict[str, float]


@dataclass(frozen=True, eq=False)
class Mark:
    """One domain's Gaussian, ready for any number of videos: mean (D,), the Cholesky factor (D, D) of the covariance
    in float32, and half the logarithm of its determinant."""

    mean: torch.Tensor
    factor: torch.Tensor
    half_log_det: float

    @classmethod
    def of(cls, prototype: Mapping[str, torch.Tensor]) -> Mark:
        """From `mean` (D,) and `covariance` (D, D) of the pooled features over a domain's training clips."""
        factor = torch.linalg.cholesky(prototype["covariance"].double())
        return cls(prototype["mean"].double(), factor.float(), factor.diagonal().log().sum().item())

    @property
    def bytes(self) -> int:
        return self.mean.nbytes + self.factor.nbytes

    def log_likelihood(self, features: torch.Tensor) -> float:
        """log N(features; mean, covariance) without the constant, divided by the number of dimensions."""
        deviation = (features.double() - self.mean).float().unsqueeze(1)  # (D, 1)
        whitened = torch.linalg.solve_triangular(self.factor, deviation, upper=False).double()
        return (-0.5 * whitened.square().sum().item() - self.half_log_det) / len(features)


def route(features: torch.Tensor, marks: Iterable[tuple[str, Mark]]) -> Route:
    """The likeliest domain of a video with pooled features (D,).

    Scores are the softmax of the mean log-likelihood over dimensions times `SHARPNESS`.
    Without any candidate the answer is `general`, the frozen backbone alone.
    """
    likelihoods = {
        name: mark.log_likelihood(features) for name, mark in marks if mark.mean.shape == features.shape
    }
    if not likelihoods:
        return Route(GENERAL_DOMAIN, {})
    names = sorted(likelihoods)
    scores = (
        (torch.tensor([likelihoods[name] for name in names], dtype=torch.float64) * SHARPNESS)
        .softmax(0)
        .tolist()
    )
    best = max(range(len(names)), key=scores.__getitem__)
    return Route(names[best], dict(zip(names, scores, strict=True)))
