"""Routing a video to a domain by its features."""

from __future__ import annotations

import pytest
import torch

from workers.router import route


def _domain(mean: float, std: float = 1.0) -> dict[str, torch.Tensor]:
    return {"mean": torch.full((8,), mean), "std": torch.full((8,), std)}


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


def test_a_feature_that_never_varied_does_not_divide_by_zero() -> None:
    assert route(torch.ones(8), {"flat": _domain(1, 0.0)}).scores == {"flat": 1.0}


def test_without_candidates_the_frozen_backbone_answers() -> None:
    assert route(torch.ones(8), {}).selected == "general"


def test_a_prototype_of_another_width_is_no_candidate() -> None:
    assert route(torch.ones(4), {"traffic": _domain(1)}).selected == "general"
