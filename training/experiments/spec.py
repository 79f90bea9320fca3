"""One run of an experiment as data: what is trained, on what, from which seed. Equal specs are the same run."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

MethodName = Literal["milora", "lora", "rslora", "dora", "xlora", "frozen"]
DEMO = "video_llama_3"  # the architecture of the demo backbone


@dataclass(frozen=True)
class Arm:
    """What is compared: a method on a backbone, and the config keys in which it differs from the recipe.

    ``tuned_as`` names the arm whose swept learning rate this one takes; none: its own.
    """

    name: str
    method: MethodName = "milora"
    settings: Mapping[str, Any] = field(default_factory=dict)
    tuned_as: str | None = None
    architecture: str = DEMO

    def on(self, architecture: str) -> Arm:
        """The same on another backbone, with a rate of its own."""
        return replace(self, name=f"{self.name}, {architecture}", architecture=architecture)


@dataclass(frozen=True)
class Size:
    """How much a run learns and is measured on; short clips only, so that many runs fit into an hour."""

    clips: int = 160
    new_looks: float = 4.0  # times as many clips where known words have new looks
    new_words: float = 7.0  # and where the wording is new
    test_clips: int = 96
    validation_clips: int = 48
    batch_size: int = 8
    max_frames: int = 7


@dataclass(frozen=True)
class RunSpec:
    """One training and its measurement on ``split``."""

    arm: str
    method: MethodName
    domain: str
    seed: int
    clips: int
    measured_clips: int
    split: Literal["validation", "test"]
    batch_size: int
    max_frames: int
    settings: Mapping[str, Any]  # dotted config keys
    architecture: str = DEMO

    @property
    def key(self) -> str:
        """A file name; runs that differ in nothing but the name of their arm share it."""
        what = {name: value for name, value in asdict(self).items() if name != "arm"}
        if self.architecture == DEMO:  # as before there was another
            del what["architecture"]
        digest = hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:10]
        return f"{self.domain}-{self.method}-{self.split}-s{self.seed}-{digest}"
