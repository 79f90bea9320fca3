"""Experts that were trained again, beside those that are shipped."""

from __future__ import annotations

import json
from typing import Any

import pytest

from model_store.files import SHIPPED_ROOT
from model_store.manifest import AdapterManifest
from model_store.registry import AdapterRegistry
from training.experts.agreement import compare
from training.experts.recipe import world_config

SHIPPED = AdapterRegistry([SHIPPED_ROOT / "adapters"]).latest("traffic").manifest


def again(**quality: Any) -> AdapterManifest:
    return SHIPPED.model_copy(update={"quality": {**SHIPPED.quality, **quality}})


def test_every_figure_of_the_card_is_compared() -> None:
    compared = compare(SHIPPED, again())
    assert {one.figure for one in compared} >= {"trainable_parameters", "rouge_l", "exact_match", "fact_f1"}
    assert all(one.agrees for one in compared)


@pytest.mark.parametrize("moved", [-0.011, 0.011, float("nan")])
def test_a_figure_that_moved_too_far_differs(moved: float) -> None:
    compared = compare(SHIPPED, again(rouge_l=SHIPPED.quality["rouge_l"] + moved))
    assert [one.figure for one in compared if not one.agrees] == ["rouge_l"]
    assert "DIFFERS" in "".join(map(str, compared))


def test_a_figure_that_is_gone_differs() -> None:
    quality = {name: value for name, value in SHIPPED.quality.items() if name != "fact_f1"}
    compared = compare(SHIPPED, SHIPPED.model_copy(update={"quality": quality}))
    assert [one.figure for one in compared if not one.agrees] == ["fact_f1"]


def test_another_recipe_is_not_compared() -> None:
    other = {**SHIPPED.training, "recipe": world_config(seed=12).learned()}
    assert compare(SHIPPED, SHIPPED.model_copy(update={"training": other})) == []


def test_the_shipped_cards_are_of_the_recipe_that_trains_them_again() -> None:
    registry = AdapterRegistry([SHIPPED_ROOT / "adapters"])
    recipes = [registry.latest(domain).manifest.training["recipe"] for domain in registry.domains()]
    assert recipes == [json.loads(json.dumps(world_config().learned()))] * 4
