"""How many of a clip's facts a summary tells: object, colour, count, direction (the action) and order.

A summary is read back sentence by sentence with the phrases of every setting, so that an answer in another domain's
words is credited for what it gets right. Sentences are then matched to the clip's events, each to one at most, so that
the most facts agree; order is asked of neighbouring events whose object was found.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise, permutations

from training.world.clip import Clip, Event
from training.world.motion import Motion
from training.world.palette import COLOURS
from training.world.settings import ALL_SETTINGS

ATTRIBUTES = ("object", "colour", "count", "direction", "order")


@dataclass(frozen=True)
class Told:
    """What one sentence says; None where it says nothing that is known."""

    kind: str | None
    colour: str | None
    count: int | None
    motion: Motion | None


@dataclass(frozen=True)
class FactScore:
    """Right facts and all facts of the reference, by attribute."""

    right: Counter[str]
    total: Counter[str]

    @property
    def recall(self) -> float:
        return sum(self.right.values()) / max(1, sum(self.total.values()))


def score_facts(summary: str, clip: Clip) -> FactScore:
    """Compares a summary with the facts of a clip."""
    told = [read_sentence(sentence) for sentence in re.split(r"(?<=[.!?])\s+", summary.strip()) if sentence]
    partner = _match(clip.events, told)
    right: Counter[str] = Counter()
    for event, index in zip(clip.events, partner, strict=True):
        if index is not None:
            right.update(_agreement(event, told[index]))
    found = [
        i if i is not None and told[i].kind == e.kind else None
        for e, i in zip(clip.events, partner, strict=True)
    ]
    right["order"] = sum(a is not None and b is not None and a < b for a, b in pairwise(found))
    events = len(clip.events)
    total = Counter(
        {"object": events, "colour": events, "count": events, "direction": events, "order": events - 1}
    )
    return FactScore(right, total)


def read_sentence(sentence: str) -> Told:
    """The object, colour, count and action that a sentence tells, in any setting's words."""
    text = sentence.lower()
    kind = next((kind for pattern, kind in _nouns() if pattern.search(text)), None)
    colour = next((word for word in re.findall(r"[a-z]+", text) if word in COLOURS), None)
    count = next((count for pattern, count in _COUNTS if pattern.search(text)), None)
    motion = next((motion for pattern, motion in _motions() if pattern.search(text)), None)
    return Told(kind, colour, count, motion)


_COUNTS = (
    (re.compile(r"\b(three|trio|threesome)\b"), 3),
    (re.compile(r"\b(two|pair|couple|duo)\b"), 2),
    (re.compile(rf"\b(one|a|an|single|lone) (single |lone )?({'|'.join(COLOURS)})\b"), 1),
)


@lru_cache(maxsize=1)
def _nouns() -> list[tuple[re.Pattern[str], str]]:
    """Patterns behind a colour word, so that a scenery word (the bridge, the board) is not taken for an object."""
    colours = "|".join(COLOURS)
    nouns = [
        (noun, kind)
        for setting in ALL_SETTINGS
        for kind, many in setting.kinds.items()
        for noun in (kind, many)
    ]
    return [(re.compile(rf"\b(?:{colours}) {noun}\b"), kind) for noun, kind in nouns]


@lru_cache(maxsize=1)
def _motions() -> list[tuple[re.Pattern[str], Motion]]:
    """Every setting's action phrases, the longest first, with the subject left open."""
    phrases = {
        (phrase, motion)
        for setting in ALL_SETTINGS
        for motion, forms in setting.wording.actions.items()
        for phrase in forms
    }
    longest_first = sorted(phrases, key=lambda item: (-len(item[0]), item))
    return [(re.compile(_open(phrase)), motion) for phrase, motion in longest_first]


def _open(phrase: str) -> str:
    parts = [re.escape(part.strip()) for part in phrase.split("{S}")]
    return r"\b" + r"\b.+\b".join(part for part in parts if part) + r"\b"


def _agreement(event: Event, told: Told) -> list[str]:
    pairs = (("object", event.kind, told.kind), ("colour", event.colour, told.colour),
             ("count", event.count, told.count), ("direction", event.motion, told.motion))  # fmt: skip
    return [name for name, truth, said in pairs if truth == said]


def _match(events: tuple[Event, ...], told: list[Told]) -> list[int | None]:
    """The sentence of each event (or None) with the most agreement; among equals the one in the told order."""
    slots: list[int | None] = [*range(min(len(told), 6)), *[None] * len(events)]
    worth = [[0 if i is None else len(_agreement(event, told[i])) for i in slots] for event in events]

    def value(choice: tuple[int, ...]) -> tuple[int, int]:
        total = sum(worth[row][column] for row, column in enumerate(choice))
        return total, sum(a < b for a, b in pairwise(choice))

    best = max(permutations(range(len(slots)), len(events)), key=value)
    return [slots[column] for column in best]
