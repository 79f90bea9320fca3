"""`auto`: which domain a video belongs to, by what the frozen vision tower sees in it."""

from collections.abc import Mapping
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


def route(features: torch.Tensor, prototypes: Mapping[str, Mapping[str, torch.Tensor]]) -> Route:
    """The likeliest domain of a video with pooled features (D,).

    Every domain is a Gaussian: `mean` (D,) and `covariance` (D, D) of the same features over its training
    clips. Scores are the softmax of the mean log-likelihood over dimensions times `SHARPNESS`.
    Without any candidate the answer is `general`, the frozen backbone alone.
    """
    names = sorted(name for name, shape in prototypes.items() if shape["mean"].shape == features.shape)
    if not names:
        return Route(GENERAL_DOMAIN, {})
    likelihoods = torch.stack([_log_likelihood(features, prototypes[name]) for name in names])
    scores = (likelihoods * SHARPNESS).softmax(0).tolist()
    best = max(range(len(names)), key=scores.__getitem__)
    return Route(names[best], dict(zip(names, scores, strict=True)))


def _log_likelihood(features: torch.Tensor, shape: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """log N(features; mean, covariance) without the constant, divided by the number of dimensions."""
    factor = torch.linalg.cholesky(shape["covariance"].double())
    deviation = (features.double() - shape["mean"].double()).unsqueeze(1)  # (D, 1)
    whitened = torch.linalg.solve_triangular(factor, deviation, upper=False)
    return (-0.5 * whitened.square().sum() - factor.diagonal().log().sum()) / len(features)
