"""Fact precision, recall and invention against summaries that were scored by hand.

One clip of three events, so 3 objects, 3 colours, 3 counts, 3 directions and 2 orders: 14 facts. Beside each summary
stand the facts that it tells rightly (recall's), those that it tells and those of them that hold (precision's), and
those that are nowhere in the clip.
"""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from training.world import Clip, Event, Motion, make_clip
from training.world.scoring import ATTRIBUTES, UNKNOWN, Told, read_claims, score_facts
from training.world.settings import ALL_SETTINGS, EXPERT_SETTINGS

TRAFFIC = EXPERT_SETTINGS["traffic"]


def _event(kind: str, colour: str, count: int, motion: Motion, start_s: float) -> Event:
    return Event(kind, colour, count, motion, start_s, start_s + 3, 0.5, False)


CLIP = replace(
    make_clip("traffic", 0, "validation"),
    setting=TRAFFIC,
    place=next(place for place in TRAFFIC.places if place.phrase == "the bridge"),
    duration_s=9.0,
    events=(
        _event("car", "red", 1, Motion.RIGHT, 0.0),
        _event("bus", "blue", 2, Motion.WAIT, 3.0),
        _event("tram", "green", 3, Motion.AWAY, 6.0),
    ),
)
CAR = "Traffic report for the bridge: one red car heads east."
BUSES = "Behind this two blue buses queue at the lights."
TRAMS = "To close three green trams drive off down the road."

# (summary, right of 14, told, true of told, invented)
BY_HAND = {
    "the reference": (f"{CAR} {BUSES} {TRAMS}", 14, 14, 14, 0),
    # Yellow for red: one colour is wrong, and nothing in the clip is yellow.
    "a wrong colour": (f"{CAR.replace('red', 'yellow')} {BUSES} {TRAMS}", 13, 14, 13, 1),
    # The buses' blue for the car: wrong, but not invented.
    "another event's colour": (f"{CAR.replace('red', 'blue')} {BUSES} {TRAMS}", 13, 14, 13, 0),
    # The car is an elephant: its object and the order of the first pair are lost; no order is told of it either.
    "an invented object": (f"{CAR.replace('car', 'elephant')} {BUSES} {TRAMS}", 12, 13, 12, 1),
    # A claim about nothing tells 4 facts, none true. That it is one is not invented: the car is one as well.
    "an invented event": (
        f"{CAR} {BUSES} {TRAMS} A minute on one purple scooter skids on the wet road.", 14, 18, 14, 3,
    ),
    # Buses, car, trams: car before buses is lost. Told are buses before car (false) and car before trams (true).
    "two events swapped": (f"{BUSES} {CAR} {TRAMS}", 13, 14, 13, 0),
    # Trams, buses, car: both pairs are false.
    "all told backwards": (f"{TRAMS} {BUSES} {CAR}", 12, 14, 12, 0),
    # 4 facts and both orders are lost. What is told is true, that the car came before the trams as well.
    "the middle event omitted": (f"{CAR} {TRAMS}", 8, 9, 9, 0),
    "only one event": (TRAMS, 4, 4, 4, 0),
    # Two cars: wrong, but there are two of something.
    "a wrong count": (f"{CAR.replace('one red car heads', 'two red cars head')} {BUSES} {TRAMS}", 13, 14, 13, 0),
    # West for east: nothing in the clip goes west.
    "a wrong direction": (f"{CAR.replace('east', 'west')} {BUSES} {TRAMS}", 13, 14, 13, 1),
    # The second time the car is told it is about no event left: 4 facts more, none true, none invented.
    "an event told twice": (f"{CAR} {CAR} {BUSES} {TRAMS}", 14, 18, 14, 0),
    "a paraphrase in other domains' words": (
        "A single red car glides rightward. A pair of blue buses stay put. In the end a trio of green trams fade into "
        "the distance.", 14, 14, 14, 0,
    ),
    "all in one sentence": (
        "One red car heads east and two blue buses queue at the lights, while three green trams drive off down the "
        "road.", 14, 14, 14, 0,
    ),
    # Object, count and direction of the car are told, its colour is not.
    "a colour left out": (f"{CAR.replace('red ', '')} {BUSES} {TRAMS}", 13, 13, 13, 0),
    # An object that the world does not know, of a colour and number that the clip does.
    "an object of no domain": ("A red dinosaur dances.", 2, 3, 2, 1),
    "garbage": ("Video the of of and. Something happened somewhere, they say.", 0, 0, 0, 0),
    "nothing": ("", 0, 0, 0, 0),
}  # fmt: skip


@pytest.mark.parametrize(("summary", "right", "told", "true", "invented"), BY_HAND.values(), ids=BY_HAND)
def test_facts_are_counted_as_by_hand(summary: str, right: int, told: int, true: int, invented: int) -> None:
    score = score_facts(summary, CLIP)
    counted = (score.right.total(), score.told.total(), score.true.total(), score.invented.total())
    assert counted == (right, told, true, invented)
    assert score.total.total() == 14
    assert score.recall == right / 14
    assert score.precision == (true / told if told else 0.0)


def test_the_reference_by_hand_is_the_clips_own() -> None:
    assert BY_HAND["the reference"][0] == CLIP.summary


@pytest.mark.parametrize(
    ("name", "attribute"),
    [
        ("a wrong colour", "colour"),
        ("an invented object", "object"),
        ("a wrong count", "count"),
        ("a wrong direction", "direction"),
        ("two events swapped", "order"),
    ],
)
def test_an_error_costs_its_own_attribute(name: str, attribute: str) -> None:
    score = score_facts(BY_HAND[name][0], CLIP)
    wrong = {kind for kind in ATTRIBUTES if score.true[kind] < score.told[kind]}
    assert wrong == {attribute}


def test_the_rate_of_invention_leaves_order_out() -> None:
    score = score_facts(BY_HAND["an invented event"][0], CLIP)
    assert score.invented_rate == 3 / 16
    assert dict(score.invented) == {"object": 1, "colour": 1, "direction": 1}


def test_a_clause_may_tell_of_several_subjects() -> None:
    assert read_claims("A red car heads east past two blue buses.") == [
        Told("car", "red", 2, Motion.RIGHT),  # number and action are the clause's first ones
        Told("bus", "blue"),
    ]


def test_a_noun_that_the_world_does_not_know_is_an_object_all_the_same() -> None:
    assert read_claims("Three purple dinosaurs head east.") == [Told(UNKNOWN, "purple", 3, Motion.RIGHT)]


def test_no_place_opener_or_action_holds_an_objects_word() -> None:
    nouns = {noun for setting in ALL_SETTINGS for pair in setting.kinds.items() for noun in pair}
    for setting in ALL_SETTINGS:
        wording = setting.wording
        texts = [place.phrase for place in setting.places]
        texts += [wording.first, *wording.later, wording.last, *wording.counts]
        texts += [phrase for forms in wording.actions.values() for phrase in forms]
        assert not nouns & {word for text in texts for word in re.findall("[a-z]+", text.lower())}


@pytest.mark.parametrize("domain", ["general", *EXPERT_SETTINGS])
def test_every_reference_is_wholly_precise(domain: str) -> None:
    for index in range(100):
        clip: Clip = make_clip(domain, index, "test")
        score = score_facts(clip.summary, clip)
        assert score.true == score.told == score.total
        assert score.invented.total() == 0
