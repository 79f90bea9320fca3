"""Routing a video to a domain by its features."""

from __future__ import annotations

import pytest
import torch

from workers.router import Mark, Route
from workers.router import route as route_among


def _domain(mean: float, std: float = 1.0) -> dict[str, torch.Tensor]:
    return {"mean": torch.full((8,), mean), "covariance": std**2 * torch.eye(8)}


def route(features: torch.Tensor, domains: dict[str, dict[str, torch.Tensor]]) -> Route:
    return route_among(features, ((name, Mark.of(domain)) for name, domain in domains.items()))


def test_the_nearest_domain_is_selected_and_scores_sum_to_one() -> None:
    found = route(
        torch.full((8,), 0.9), {"traffic": _domain(1), "sports": _domain(3), "general": _domain(-2)}
    )
    assert found.selected == "traffic"
    assert sum(found.scores.values()) == pytest.approx(1)
    assert found.scores["traffic"] > found.scores["sports"] > found.scores["general"]


def test_a_wide_domain_takes_what_is_far_from_the_narrow_one() -> None:
    domains = {"narrow": _domain(0, 0.1), "wide": _domain(0, 3.0)}
    assert route(torch.full((8,), 0.05), domains).selected == "narrow"
    assert route(torch.full((8,), 2.0), domains).selected == "wide"


def test_features_that_vary_together_are_told_from_features_that_do_not() -> None:
    together = torch.tensor([[1.0, 0.9], [0.9, 1.0]])
    domains = {
        "together": {"mean": torch.zeros(2), "covariance": together},
        "apart": {"mean": torch.zeros(2), "covariance": torch.eye(2)},
    }
    assert route(torch.tensor([1.0, 1.0]), domains).selected == "together"
    assert route(torch.tensor([1.0, -1.0]), domains).selected == "apart"


def test_scores_are_the_softmax_of_the_mean_log_density() -> None:
    domains = {"traffic": _domain(1, 0.5), "sports": _domain(0, 2.0)}
    x = torch.linspace(0, 1, 8)
    density = torch.tensor(
        [torch.distributions.Normal(m, s).log_prob(x).mean().item() for m, s in ((0.0, 2.0), (1.0, 0.5))]
    )
    expected = (density * 10).softmax(0)
    found = route(x, domains).scores
    assert found["sports"] == pytest.approx(expected[0].item(), abs=1e-6)
    assert found["traffic"] == pytest.approx(expected[1].item(), abs=1e-6)


def test_without_candidates_the_frozen_backbone_answers() -> None:
    assert route(torch.ones(8), {}).selected == "general"


def test_a_prototype_of_another_width_is_no_candidate() -> None:
    assert route(torch.ones(4), {"traffic": _domain(1)}).selected == "general"
