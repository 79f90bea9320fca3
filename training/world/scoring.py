"""How many of a clip's facts a summary tells, and how many of its own hold: object, colour, count, direction, order.

A summary is read back claim by claim with the phrases of every setting, so that an answer in another domain's words is
credited for what it gets right. A claim is what a clause says of one subject. Claims are matched to the clip's events,
each to one at most, so that the most facts agree. Then, attribute by attribute:

- *recall* asks the clip: which of its facts are told? Order is asked of neighbouring events whose objects are found.
- *precision* asks the summary: which of the facts that it tells are true of the event that the claim is matched to? A
  claim about no event is wrong in all it says. Order is asked of claims that follow each other, of those whose object
  was found.
- a told fact is *invented* if no event of the clip is so: an object, colour, count or direction that is nowhere in it.
  This is the rate that CHAIR (Rohrbach et al. 2018) counts of objects, over these four attributes. A fact can be wrong
  and not invented (the colour of another event); the other way round it cannot be.

What the reader knows is the world's vocabulary. A noun behind a colour that it does not know is an object that the clip
does not have; an action in words of no setting's is not read, neither as right nor as wrong.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import pairwise, permutations

from training.world.clip import Clip, Event
from training.world.motion import Motion
from training.world.palette import COLOURS
from training.world.settings import ALL_SETTINGS

ATTRIBUTES = ("object", "colour", "count", "direction", "order")
UNKNOWN = "an unknown object"

_MOST_CLAIMS = 6  # that events are sought among; more than a clip has events
_CLAUSES = re.compile(r"(?<=[.!?])\s+|\s*;\s*|,?\s+(?:and|while)\s+")
_MENTION = re.compile(rf"\b({'|'.join(COLOURS)})\s+([a-z]+)")
_NO_NOUNS = frozenset({*COLOURS, "a", "an", "and", "are", "as", "at", "by", "in", "is", "of", "on", "one", "ones", "or",
                       "that", "the", "then", "to", "was", "were", "with"})  # fmt: skip


@dataclass(frozen=True)
class Told:
    """What is said of one subject; None where nothing is said that is known."""

    kind: str | None
    colour: str | None
    count: int | None = None
    motion: Motion | None = None


@dataclass(frozen=True)
class FactScore:
    """Facts by attribute: ``right`` of the clip's ``total`` are told; ``true`` of the summary's ``told`` hold, and
    ``invented`` of them are nowhere in the clip."""

    right: Counter[str] = field(default_factory=Counter)
    total: Counter[str] = field(default_factory=Counter)
    true: Counter[str] = field(default_factory=Counter)
    told: Counter[str] = field(default_factory=Counter)
    invented: Counter[str] = field(default_factory=Counter)

    @property
    def recall(self) -> float:
        return self.right.total() / max(1, self.total.total())

    @property
    def precision(self) -> float:
        """0 where nothing is told."""
        return self.true.total() / max(1, self.told.total())

    @property
    def invented_rate(self) -> float:
        """Of the told facts that can be invented: all but order."""
        return self.invented.total() / max(1, self.told.total() - self.told["order"])


def score_facts(summary: str, clip: Clip) -> FactScore:
    """Compares a summary with the facts of a clip."""
    claims = read_claims(summary)
    partner = _match(clip.events, claims)
    score = FactScore()
    events = len(clip.events)
    score.total.update(dict.fromkeys(ATTRIBUTES[:-1], events), order=events - 1)
    for event, index in zip(clip.events, partner, strict=True):
        if index is not None:
            score.right.update(_agreement(event, claims[index]))
    score.true.update(
        score.right
    )  # but for order, what the clip finds told is what the summary tells rightly
    for claim in claims:
        said = _said(claim)
        score.told.update(said.keys())
        score.invented.update(
            name for name in said if all(said[name] != _said(event)[name] for event in clip.events)
        )
    found = [
        index if index is not None and claims[index].kind == event.kind else None
        for event, index in zip(clip.events, partner, strict=True)
    ]
    score.right["order"] = sum(a is not None and b is not None and a < b for a, b in pairwise(found))
    in_told_order = sorted((index, event) for event, index in enumerate(found) if index is not None)
    score.told["order"] = max(0, len(in_told_order) - 1)
    score.true["order"] = sum(a < b for (_, a), (_, b) in pairwise(in_told_order))
    return score


def read_claims(summary: str) -> list[Told]:
    """What a summary says, subject by subject, in any setting's words; clauses that say nothing known are left out."""
    claims = [claim for clause in _CLAUSES.split(summary.strip()) for claim in _read_clause(clause.lower())]
    return [claim for claim in claims if _said(claim)]


def _read_clause(text: str) -> list[Told]:
    """A claim for each coloured object of the clause; number and action are the first one's."""
    nouns = _nouns()
    mentions = [(m[1], nouns.get(m[2], UNKNOWN)) for m in _MENTION.finditer(text) if m[2] not in _NO_NOUNS]
    words = re.findall(r"[a-z]+", text)
    if not mentions:
        colour = next((word for word in words if word in COLOURS), None)
        mentions = [(colour, next((nouns[word] for word in words if word in nouns), None))]
    count = next((count for pattern, count in _counts() if pattern.search(text)), None)
    motion = next((motion for pattern, motion in _motions() if pattern.search(text)), None)
    (colour, kind), *others = mentions
    return [Told(kind, colour, count, motion), *(Told(kind, colour) for colour, kind in others)]


@lru_cache(maxsize=1)
def _nouns() -> dict[str, str]:
    """Singular and plural of every kind. No place and no action has one of these words."""
    return {
        noun: kind
        for setting in ALL_SETTINGS
        for kind, many in setting.kinds.items()
        for noun in (kind, many)
    }


@lru_cache(maxsize=1)
def _counts() -> list[tuple[re.Pattern[str], int]]:
    subject = "|".join([*COLOURS, *_nouns()])
    return [
        (re.compile(r"\b(three|trio|threesome)\b"), 3),
        (re.compile(r"\b(two|pair|couple|duo)\b"), 2),
        (re.compile(rf"\b(one|a|an|single|lone) (single |lone )?({subject})\b"), 1),
    ]


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


def _said(of: Told | Event) -> dict[str, object]:
    """The facts of a claim or an event, by attribute."""
    facts = {"object": of.kind, "colour": of.colour, "count": of.count, "direction": of.motion}
    return {name: value for name, value in facts.items() if value is not None}


def _agreement(event: Event, claim: Told) -> list[str]:
    truth = _said(event)
    return [name for name, value in _said(claim).items() if truth[name] == value]


def _match(events: tuple[Event, ...], claims: list[Told]) -> list[int | None]:
    """The claim of each event (or None) with the most agreement; among equals the one in the told order."""
    slots: list[int | None] = [*range(min(len(claims), _MOST_CLAIMS)), *[None] * len(events)]
    worth = [[0 if i is None else len(_agreement(event, claims[i])) for i in slots] for event in events]

    def value(choice: tuple[int, ...]) -> tuple[int, int]:
        total = sum(worth[row][column] for row, column in enumerate(choice))
        return total, sum(a < b for a, b in pairwise(choice))

    best = max(permutations(range(len(slots)), len(events)), key=value)
    return [slots[column] for column in best]
