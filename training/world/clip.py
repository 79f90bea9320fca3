"""A clip: the script of a few seconds of the demo world, from which picture, summary and facts all follow.

Told are the two to four events, one after the other. Never told, by rule: whatever is smaller than
``UNTOLD_BELOW`` pixels (passing birds, leaves), still clutter, the light and the drift of the camera.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from PIL import Image

from training.world.looks import seen_as
from training.world.motion import Motion, poses
from training.world.palette import COLOURS
from training.world.scenery import DRIFT, HEIGHT, WIDTH, Place, background
from training.world.settings import Setting
from training.world.sprites import blend, flat

FPS = 24
UNTOLD_BELOW = 30  # pixels of a 320 x 240 picture; every told subject is at least 34 tall


@dataclass(frozen=True)
class Event:
    """A group of equal subjects that does one thing from ``start_s`` to ``end_s``."""

    kind: str
    colour: str
    count: int
    motion: Motion
    start_s: float
    end_s: float
    lane: float
    facing_left: bool


@dataclass(frozen=True)
class Passer:
    """A small grey thing that crosses the picture and that no summary tells of."""

    start_s: float
    end_s: float
    y: float
    leftward: bool
    size: int


@dataclass(frozen=True)
class Fact:
    """One event as data: who, how many, which colour, what, which direction, where, when."""

    subject: str
    colour: str
    count: int
    action: str
    direction: str | None
    place: str
    order: int
    start_s: float
    end_s: float


@dataclass(frozen=True)
class Box:
    """Where a told subject is in one frame, in fractions of the picture; ``facing_left`` as drawn."""

    kind: str
    colour: str
    motion: Motion
    facing_left: bool
    x0: float
    y0: float
    x1: float
    y1: float


@dataclass(frozen=True)
class Clip:
    """A script. Equal scripts render to equal pixels."""

    domain: str
    seed: int
    setting: Setting
    place: Place
    duration_s: float
    events: tuple[Event, ...]
    passers: tuple[Passer, ...]
    scenery_seed: int
    light: float
    light_swing: float
    drift: tuple[float, float, float]  # amplitude in x and y (pixels), cycles per second

    @cached_property
    def summary(self) -> str:
        """The reference: a sentence an event, in order. It follows from the facts alone."""
        wording = self.setting.wording
        sentences = []
        for index, event in enumerate(self.events):
            subject = wording.subject(event.colour, event.kind, self.setting.kinds[event.kind], event.count)
            sentences.append(
                wording.sentence(
                    index, len(self.events), self.place.phrase, subject, event.motion, event.count
                )
            )
        return " ".join(sentences)

    @cached_property
    def facts(self) -> tuple[Fact, ...]:
        return tuple(
            Fact(e.kind, e.colour, e.count, e.motion.value, _direction(e.motion), self.place.phrase, order,
                 round(e.start_s, 2), round(e.end_s, 2))
            for order, e in enumerate(self.events)
        )  # fmt: skip

    @property
    def frame_count(self) -> int:
        return round(self.duration_s * FPS)

    @cached_property
    def _background(self) -> np.ndarray:
        return background(self.place, random.Random(self.scenery_seed))

    def render(self, timestamps_s: Sequence[float], width: int = WIDTH, height: int = HEIGHT) -> np.ndarray:
        """The picture at each instant: (T, height, width, 3) uint8, reduced by area where smaller than 320 x 240."""
        frames = np.empty((len(timestamps_s), height, width, 3), dtype=np.uint8)
        for index, t in enumerate(timestamps_s):
            frame = self._compose(t)
            if (width, height) != (WIDTH, HEIGHT):
                image = Image.fromarray(frame)
                even = WIDTH % width == 0 and HEIGHT % height == 0
                frame = np.asarray(image.reduce((WIDTH // width, HEIGHT // height)) if even
                                   else image.resize((width, height), Image.Resampling.BOX))  # fmt: skip
            light = self.light * (1 + self.light_swing * math.sin(0.9 * t))
            np.clip(frame * np.float32(light), 0, 255, out=frames[index], casting="unsafe")
        return seen_as(self.setting.look, frames)

    def labels(self, timestamps_s: Sequence[float]) -> list[list[Box]]:
        """The told subjects of each frame."""
        return [
            [
                Box(event.kind, event.colour, event.motion, event.facing_left,
                    (x - size / 2) / WIDTH, (y - size / 2) / HEIGHT, (x + size / 2) / WIDTH, (y + size / 2) / HEIGHT)
                for event, x, y, size, _ in self._subjects(t)
            ]
            for t in timestamps_s
        ]  # fmt: skip

    def _compose(self, t: float) -> np.ndarray:
        dx, dy = self._camera(t)
        frame = self._background[DRIFT + dy : DRIFT + dy + HEIGHT, DRIFT + dx : DRIFT + dx + WIDTH].copy()
        for passer in self.passers:
            if passer.start_s <= t < passer.end_s:
                phase = (t - passer.start_s) / (passer.end_s - passer.start_s)
                x = (1 - phase if passer.leftward else phase) * WIDTH
                flat(frame, (x, passer.y, x + passer.size, passer.y + passer.size * 0.6), (122, 122, 118))
        for event, x, y, size, angle in self._subjects(t):
            blend(frame, event.kind, event.colour, (x, y), size, event.facing_left, angle)
        return frame

    def _camera(self, t: float) -> tuple[int, int]:
        wave = math.sin(2 * math.pi * self.drift[2] * t)
        return round(self.drift[0] * wave), round(self.drift[1] * wave)

    def _subjects(self, t: float) -> list[tuple[Event, float, float, float, float]]:
        dx, dy = self._camera(t)
        return [
            (event, pose.x - dx, pose.y - dy, pose.size, pose.angle)
            for event in self.events
            if event.start_s <= t < event.end_s
            for pose in poses(
                event.motion, event.count, event.lane, (t - event.start_s) / (event.end_s - event.start_s)
            )
        ]


def _direction(motion: Motion) -> str | None:
    return motion.value if motion in (Motion.RIGHT, Motion.LEFT, Motion.UP, Motion.DOWN) else None


def write_script(
    domain: str, seed: int, setting: Setting, rng: random.Random, combinations: Sequence[tuple[str, str]]
) -> Clip:
    """Draws a script from ``rng``; ``combinations`` are the (kind, colour) pairs to tell of, in order of choice."""
    total = rng.choice((2, 2, 3, 3, 3, 4))
    duration = min(12.0, max(6.0, total * rng.uniform(2.85, 3.6)))
    bounds = _bounds(duration, total, rng)
    events = []
    for (kind, colour), start, end in zip(combinations[:total], bounds, bounds[1:], strict=False):
        motion = rng.choice(setting.motions)
        facing_left = motion is Motion.LEFT or (motion is not Motion.RIGHT and rng.random() < 0.5)
        count = rng.choice((1, 1, 2, 3))
        events.append(Event(kind, colour, count, motion, start, end, rng.random(), facing_left))
    if setting.backwards:
        events.reverse()  # the order of a clip's events is that of their telling
    return Clip(
        domain=domain,
        seed=seed,
        setting=setting,
        place=rng.choice(setting.places),
        duration_s=round(duration * FPS) / FPS,
        events=tuple(events),
        passers=tuple(_passer(duration, rng) for _ in range(rng.choice((0, 1, 1, 2)))),
        scenery_seed=rng.getrandbits(32),
        light=rng.uniform(0.8, 1.1),
        light_swing=rng.uniform(0.0, 0.06),
        drift=(rng.uniform(0, DRIFT), rng.uniform(0, DRIFT / 2), rng.uniform(0.02, 0.1)),
    )


def combination_order(setting: Setting, rng: random.Random) -> list[tuple[str, str]]:
    """A random order of (kind, colour) pairs in which the first pairs have kinds of their own."""
    kinds = rng.sample(list(setting.kinds), k=len(setting.kinds))
    return [(kind, rng.choice(list(COLOURS))) for kind in kinds]


def _bounds(duration: float, total: int, rng: random.Random) -> list[float]:
    """Event borders: equal shares of the clip, moved a little."""
    share = duration / total
    inner = [share * i + rng.uniform(-0.06, 0.06) * share for i in range(1, total)]
    return [0.0, *inner, duration + 1.0 / FPS]


def _passer(duration: float, rng: random.Random) -> Passer:
    start = rng.uniform(0, duration - 1.5)
    return Passer(
        start, start + rng.uniform(0.8, 2.0), rng.uniform(10, 200), rng.random() < 0.5, rng.randint(9, 16)
    )
