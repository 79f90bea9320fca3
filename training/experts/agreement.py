"""Experts that were trained again beside those that are shipped: do the figures on their cards agree?"""

from __future__ import annotations

from dataclasses import dataclass

from model_store.manifest import AdapterManifest

DEVIATION = {"rouge_l": 0.01, "exact_match": 0.1, "fact_f1": 0.02, "frozen_rouge_l": 0.005}
"""How far a figure may be off. A training gives the same bytes again on the same machine; where sums round
differently, experts differ: docs/results.md has how far apart two trainings were."""


@dataclass(frozen=True)
class Compared:
    """One figure of a domain's card, as shipped and as trained again."""

    domain: str
    figure: str
    shipped: float
    again: float

    @property
    def agrees(self) -> bool:
        return abs(self.again - self.shipped) <= DEVIATION.get(self.figure, 0.0)

    def __str__(self) -> str:
        return (
            f"{self.domain:<10} {self.figure:<22} {self.shipped:>10g} {self.again:>10g} "
            f"{self.again - self.shipped:>+9.4f} {DEVIATION.get(self.figure, 0.0):>7g}  "
            f"{'agrees' if self.agrees else 'DIFFERS'}"
        )


HEAD = f"{'domain':<10} {'figure':<22} {'shipped':>10} {'again':>10} {'moved':>9} {'allowed':>7}"


def compare(shipped: AdapterManifest, again: AdapterManifest) -> list[Compared]:
    """Every figure of the two cards that can be off. Empty where they are not of one recipe on one backbone."""
    if _origin(shipped) != _origin(again):
        return []
    figures = [("trainable_parameters", shipped.trainable_parameters, again.trainable_parameters)]
    figures += [
        (name, shipped.quality[name], again.quality.get(name, float("nan")))
        for name in DEVIATION
        if name in shipped.quality
    ]
    return [Compared(shipped.domain, *figure) for figure in figures]


def _origin(manifest: AdapterManifest) -> tuple[object, ...]:
    """What decides what is learned."""
    training = manifest.training
    return manifest.domain, manifest.backbone.fingerprint, training.get("recipe"), training.get("clips")
