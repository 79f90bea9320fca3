"""Which clips belong to training, validation and test: disjoint seeds, and combinations that only the test shows."""

from __future__ import annotations

import random
import zlib
from typing import Literal

from training.world.clip import Clip, combination_order, write_script
from training.world.palette import COLOURS
from training.world.settings import EXPERT_SETTINGS, GENERAL, STUDY_SETTINGS

Split = Literal["train", "validation", "test"]

SPLIT_START: dict[Split, int] = {"train": 0, "validation": 1_000_000_000, "test": 2_000_000_000}
UNSEEN_SHARE = 0.4  # of the test clips that tell of at least one combination never seen in training


def make_clip(domain: str, index: int, split: Split) -> Clip:
    """Clip number ``index`` of a domain's split.

    Raises:
        ValueError: an unknown domain, or an index outside the split's range.
    """
    if not 0 <= index < 1_000_000_000:
        raise ValueError(f"clip index {index} is outside 0..999999999")
    return clip_from_seed(domain, SPLIT_START[split] + index)


def clip_from_seed(domain: str, seed: int) -> Clip:
    """The clip that a domain and an absolute seed stand for; the seed's range says which split it is of."""
    rng = random.Random(f"{domain}/{seed}")
    if domain == "general":
        setting = rng.choice(GENERAL)
    elif domain in EXPERT_SETTINGS:
        setting = EXPERT_SETTINGS[domain]
    elif domain in STUDY_SETTINGS:
        setting = rng.choice(STUDY_SETTINGS[domain])
    else:
        known = ", ".join(["general", *EXPERT_SETTINGS, *STUDY_SETTINGS])
        raise ValueError(f"unknown domain {domain!r}: one of {known}")
    pairs = combination_order(setting, rng)
    test = split_of(seed) == "test"
    pairs = [pair if test or not held_out(*pair) else _seen(pair[0], rng) for pair in pairs]
    if test and rng.random() < UNSEEN_SHARE:
        pairs[0] = _unseen(pairs[0][0], rng)
    return write_script(domain, seed, setting, rng, pairs)


def split_of(seed: int) -> Split:
    if seed >= SPLIT_START["test"]:
        return "test"
    return "validation" if seed >= SPLIT_START["validation"] else "train"


def held_out(kind: str, colour: str) -> bool:
    """Whether a combination is kept for the test split: one colour of eight for each kind."""
    return list(COLOURS)[zlib.crc32(kind.encode()) % len(COLOURS)] == colour


def _seen(kind: str, rng: random.Random) -> tuple[str, str]:
    return kind, rng.choice([colour for colour in COLOURS if not held_out(kind, colour)])


def _unseen(kind: str, rng: random.Random) -> tuple[str, str]:
    return kind, next(colour for colour in COLOURS if held_out(kind, colour))
