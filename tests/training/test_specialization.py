"""Specialization: information on gates made by hand, removals that cost what they must, and what is said of both."""

from __future__ import annotations

import math

import pytest
import torch

from training.experiments.specialization import (
    KnockOut,
    Knowledge,
    attributes_of,
    beyond_chance,
    entropy,
    information,
    information_beyond_chance,
    information_by_chance,
    spread_by_attribute,
    verdict,
)
from training.world import make_clip

VALUES = ["car", "bus"] * 40


def one_hot(experts: list[int]) -> torch.Tensor:
    return torch.nn.functional.one_hot(torch.tensor(experts), 2).float()


def test_a_gate_that_follows_an_attribute_knows_all_of_it_and_an_even_gate_nothing() -> None:
    assert information(one_hot([0, 1] * 40), VALUES) == pytest.approx(1.0)
    assert information(torch.full((80, 2), 0.5), VALUES) == pytest.approx(0.0, abs=1e-6)
    assert information(one_hot([0, 0, 1, 1] * 20), VALUES) == pytest.approx(0.0, abs=1e-6)


def test_information_of_a_soft_gate_is_that_of_its_probabilities() -> None:
    gates = torch.tensor([[0.9, 0.1], [0.1, 0.9]]).repeat(40, 1)
    expected = 1 + 0.9 * math.log2(0.9) + 0.1 * math.log2(0.1)
    assert information(gates, VALUES) == pytest.approx(expected, abs=1e-5)
    assert float(entropy(torch.tensor([0.25] * 4))) == pytest.approx(2.0)


def test_chance_gives_little_information_of_a_gate_that_knows_all() -> None:
    assert 0 < information_by_chance(one_hot([0, 1] * 40), VALUES) < 0.1


def test_the_spread_of_a_gate_is_between_an_attributes_values() -> None:
    gates = torch.tensor([[0.8, 0.2], [0.3, 0.7]]).repeat(40, 1)
    torch.testing.assert_close(spread_by_attribute(gates, VALUES), torch.tensor([0.5, 0.5]))


def known(bits: float) -> list[Knowledge]:
    return [Knowledge("layer", "temporal", 4, 0.5, {"object": bits, "colour": 0.0})]


def removed(lost: float) -> list[KnockOut]:
    even = {"object": 0.05, "colour": 0.05}
    return [
        KnockOut("expert 1", "temporal", {**even, "object": lost}),
        KnockOut("as much of all", "temporal", even),
    ]


@pytest.mark.parametrize(
    ("bits", "lost", "name"),
    [(0.5, 0.4, "specialists"), (0.5, 0.05, "partly"), (0.01, 0.4, "partly"), (0.01, 0.05, "ensemble")],
)
def test_the_verdict_needs_gates_that_know_and_a_removal_that_costs_one_kind(bits, lost, name) -> None:
    said = verdict(known(bits), removed(lost), {"object": 1000, "colour": 1000})
    assert said.name == name
    assert said.words


def test_a_removal_that_costs_no_more_than_chance_of_few_facts_is_no_specialists() -> None:
    few, many = ({"object": count, "colour": count} for count in (20, 2000))
    assert verdict(known(0.01), removed(0.2), few).name == "ensemble"
    assert verdict(known(0.01), removed(0.2), many).name == "partly"


def test_chance_gives_less_of_more_facts_and_more_of_more_looks() -> None:
    assert beyond_chance(200, 1) == pytest.approx(1.645 * 0.05, abs=1e-4)  # z of 5 %, √(0.5 / 200)
    assert beyond_chance(200, 40) > beyond_chance(200, 1) > beyond_chance(400, 1)


def test_what_a_gate_knows_through_the_domain_alone_it_does_not_know_of_an_attribute() -> None:
    """Buses and cars are of two domains each its own: a gate that follows the domain knows nothing more."""
    gates, domains = one_hot([0, 1] * 40), ["road", "track"] * 40
    assert information_beyond_chance(gates, VALUES, [""] * 80) == pytest.approx(1.0, abs=0.1)
    assert information_beyond_chance(gates, VALUES, domains) == pytest.approx(0.0, abs=1e-6)


def test_a_clips_attributes_are_those_of_what_is_told_first() -> None:
    clip = make_clip("rewind", 3, "test")
    of = attributes_of(clip)
    assert (of["object"], of["order"], of["domain"]) == (clip.events[0].kind, "backwards", "rewind")
