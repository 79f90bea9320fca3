"""How a domain tells an event. A sentence follows from the facts alone: the same facts, the same words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from training.world.motion import Motion


@dataclass(frozen=True)
class Wording:
    """A domain's phrases.

    ``first`` opens the summary and holds ``{place}``; ``later`` opens the second, third, ... sentence and ``last``
    the final one. ``counts`` are patterns for one, two and three subjects with ``{c}`` (colour), ``{s}`` or
    ``{p}`` (the noun). ``actions`` maps a motion to its phrase for one and many, ``{S}`` being the subject.
    """

    first: str
    later: tuple[str, str]
    last: str
    counts: tuple[str, str, str]
    actions: Mapping[Motion, tuple[str, str]]

    def sentence(self, index: int, total: int, place: str, subject: str, motion: Motion, count: int) -> str:
        """The sentence for event ``index`` of ``total``; ``subject`` comes from :meth:`subject`."""
        if index == 0:
            opener = self.first.format(place=place)
        else:
            opener = self.last if index == total - 1 else self.later[index - 1]
        phrase = self.actions[motion][count > 1].format(S=subject)
        text = f"{opener} {phrase}."
        return text[0].upper() + text[1:]

    def subject(self, colour: str, singular: str, plural: str, count: int) -> str:
        """The noun phrase of a group, such as ``two red cars`` or ``an orange bus``."""
        phrase = self.counts[count - 1].format(c=colour, s=singular, p=plural)
        return phrase.replace("a orange", "an orange")


def actions(pattern: str, **verbs: str) -> dict[Motion, tuple[str, str]]:
    """Builds ``Wording.actions``: each verb is ``"one form|many form"``, or one form for both, put into ``{V}``."""
    built = {}
    for name, forms in verbs.items():
        one, _, many = forms.partition("|")
        built[Motion(name)] = (pattern.replace("{V}", one), pattern.replace("{V}", many or one))
    return built
