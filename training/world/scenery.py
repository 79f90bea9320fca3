"""Backgrounds: sky, ground and a few neutral features a place, plus clutter that no summary tells of."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from training.world.palette import RGB

WIDTH, HEIGHT, DRIFT = (
    320,
    240,
    10,
)  # pixels; the picture is a window that drifts over a slightly larger background
_FULL = (WIDTH + 2 * DRIFT, HEIGHT + 2 * DRIFT)


@dataclass(frozen=True)
class Place:
    """Where a clip plays: its name in the summary, its colours, its horizon (0..1) and its features."""

    phrase: str
    sky: RGB
    ground: RGB
    horizon: float
    features: tuple[str, ...]


def background(place: Place, rng: random.Random) -> np.ndarray:
    """A background (H + 2 DRIFT, W + 2 DRIFT, 3) uint8 with jittered features, clutter and grain."""
    width, height = _FULL
    horizon = round(height * place.horizon) + rng.randint(-6, 6)
    image = Image.new("RGB", _FULL, _jitter(place.sky, rng))
    pen = ImageDraw.Draw(image)
    pen.rectangle((0, horizon, width, height), fill=_jitter(place.ground, rng))
    for name in place.features:
        _FEATURES[name](pen, rng, place, horizon)
    _clutter(pen, rng, place, horizon)
    pixels = np.asarray(image, dtype=np.int16)
    grain = np.random.default_rng(rng.getrandbits(32)).integers(
        -5, 6, size=(height, width, 1), dtype=np.int16
    )
    return np.clip(pixels + grain, 0, 255).astype(np.uint8)


def _jitter(rgb: RGB, rng: random.Random, spread: int = 8) -> RGB:
    shift = rng.randint(-spread, spread)
    return (rgb[0] + shift, rgb[1] + shift, rgb[2] + shift)


def _shift(rgb: RGB, by: int) -> RGB:
    return (max(0, min(255, rgb[0] + by)), max(0, min(255, rgb[1] + by)), max(0, min(255, rgb[2] + by)))


def _clutter(pen: ImageDraw.ImageDraw, rng: random.Random, place: Place, horizon: int) -> None:
    """Small still things of the ground's own colour: pebbles, crates, tufts."""
    for _ in range(rng.randint(2, 6)):
        size = rng.randint(7, 16)
        x, y = rng.randint(0, _FULL[0]), rng.randint(horizon, _FULL[1])
        fill = _shift(place.ground, rng.choice((-34, -22, 22, 34)))
        shape = pen.ellipse if rng.random() < 0.5 else pen.rectangle
        shape((x, y, x + size, y + size * 0.7), fill=fill)


def _waves(pen: ImageDraw.ImageDraw, rng: random.Random, place: Place, horizon: int) -> None:
    for y in range(horizon + 12, _FULL[1], 22):
        start = rng.randint(-30, 0)
        for x in range(start, _FULL[0], 44):
            pen.arc((x, y, x + 32, y + 12), 180, 360, fill=_shift(place.ground, 26), width=3)


def _clouds(pen: ImageDraw.ImageDraw, rng: random.Random, place: Place, horizon: int) -> None:
    for _ in range(3):
        x, y = rng.randint(0, _FULL[0]), rng.randint(0, max(8, horizon - 40))
        for dx in (0, 18, 36):
            pen.ellipse((x + dx, y - (dx == 18) * 8, x + dx + 30, y + 18), fill=_shift(place.sky, 22))


def _posts(pen: ImageDraw.ImageDraw, rng: random.Random, place: Place, horizon: int) -> None:
    for x in range(rng.randint(0, 40), _FULL[0], 70):
        pen.rectangle((x, horizon - 34, x + 9, horizon + 12), fill=_shift(place.ground, -30))


def _tiles(pen: ImageDraw.ImageDraw, rng: random.Random, place: Place, horizon: int) -> None:
    for x in range(0, _FULL[0], 34):
        pen.line((x, 0, x, horizon), fill=_shift(place.sky, -14), width=2)
    for y in range(horizon % 30, horizon, 30):
        pen.line((0, y, _FULL[0], y), fill=_shift(place.sky, -14), width=2)


def _window(pen: ImageDraw.ImageDraw, rng: random.Random, place: Place, horizon: int) -> None:
    x = rng.randint(30, 220)
    pen.rectangle(
        (x, 16, x + 78, max(40, horizon - 24)),
        fill=_shift(place.sky, 26),
        outline=_shift(place.sky, -40),
        width=5,
    )


def _shelf(pen: ImageDraw.ImageDraw, rng: random.Random, place: Place, horizon: int) -> None:
    for y in (horizon // 3, horizon * 2 // 3):
        pen.rectangle((0, y, _FULL[0], y + 7), fill=_shift(place.ground, -16))
        for _ in range(4):
            x = rng.randint(0, _FULL[0])
            pen.rectangle(
                (x, y - rng.randint(10, 22), x + rng.randint(8, 18), y), fill=_shift(place.sky, -30)
            )


def _stripes(pen: ImageDraw.ImageDraw, rng: random.Random, place: Place, horizon: int) -> None:
    for x in range(rng.randint(-20, 10), _FULL[0], 56):
        pen.polygon(
            (x, horizon, x + 26, horizon, x + 10, _FULL[1], x - 30, _FULL[1]), fill=_shift(place.ground, 12)
        )


def _grid(pen: ImageDraw.ImageDraw, rng: random.Random, place: Place, horizon: int) -> None:
    for x in range(rng.randint(0, 40), _FULL[0], 40):
        pen.line((x, 0, x, _FULL[1]), fill=_shift(place.sky, -18), width=2)
    for y in range(rng.randint(0, 40), _FULL[1], 40):
        pen.line((0, y, _FULL[0], y), fill=_shift(place.sky, -18), width=2)


def _fence(pen: ImageDraw.ImageDraw, rng: random.Random, place: Place, horizon: int) -> None:
    for dy in (-16, -4):
        pen.rectangle((0, horizon + dy, _FULL[0], horizon + dy + 4), fill=_shift(place.ground, -36))
    for x in range(rng.randint(0, 20), _FULL[0], 36):
        pen.rectangle((x, horizon - 22, x + 6, horizon + 6), fill=_shift(place.ground, -36))


def _barn(pen: ImageDraw.ImageDraw, rng: random.Random, place: Place, horizon: int) -> None:
    x = rng.randint(40, 200)
    pen.rectangle((x, horizon - 60, x + 90, horizon), fill=_shift(place.sky, -50))
    pen.polygon(
        (x - 10, horizon - 60, x + 45, horizon - 96, x + 100, horizon - 60), fill=_shift(place.sky, -72)
    )


def _tufts(pen: ImageDraw.ImageDraw, rng: random.Random, place: Place, horizon: int) -> None:
    for _ in range(12):
        x, y = rng.randint(0, _FULL[0]), rng.randint(horizon + 8, _FULL[1])
        for dx in (-6, 0, 6):
            pen.line((x, y, x + dx, y - 12), fill=_shift(place.ground, -30), width=3)


def _mountains(pen: ImageDraw.ImageDraw, rng: random.Random, place: Place, horizon: int) -> None:
    for x in range(rng.randint(-60, -10), _FULL[0], 90):
        peak = rng.randint(40, 84)
        pen.polygon((x, horizon, x + 65, horizon - peak, x + 130, horizon), fill=_shift(place.sky, -34))


def _dunes(pen: ImageDraw.ImageDraw, rng: random.Random, place: Place, horizon: int) -> None:
    for dy, by in ((-18, -12), (22, 12), (60, -10)):
        for x in range(rng.randint(-90, -20), _FULL[0], 150):
            pen.ellipse((x, horizon + dy, x + 190, horizon + dy + 90), fill=_shift(place.ground, by))


def _trees(pen: ImageDraw.ImageDraw, rng: random.Random, place: Place, horizon: int) -> None:
    for x in range(rng.randint(-10, 20), _FULL[0], 58):
        pen.rectangle((x + 16, horizon - 50, x + 26, horizon + 16), fill=(84, 70, 56))
        pen.ellipse((x - 8, horizon - 104, x + 50, horizon - 40), fill=_shift(place.sky, -36))


def _lanes(pen: ImageDraw.ImageDraw, rng: random.Random, place: Place, horizon: int) -> None:
    for y in range(horizon + 28, _FULL[1], 40):
        for x in range(rng.randint(-20, 0), _FULL[0], 48):
            pen.rectangle((x, y, x + 26, y + 4), fill=_shift(place.ground, 56))


def _arches(pen: ImageDraw.ImageDraw, rng: random.Random, place: Place, horizon: int) -> None:
    pen.rectangle((0, horizon - 14, _FULL[0], horizon), fill=_shift(place.ground, -26))
    for x in range(rng.randint(-60, -20), _FULL[0], 110):
        pen.arc((x, horizon - 96, x + 110, horizon + 74), 180, 360, fill=_shift(place.ground, -40), width=7)


def _skyline(pen: ImageDraw.ImageDraw, rng: random.Random, place: Place, horizon: int) -> None:
    for x in range(0, _FULL[0], 46):
        top = horizon - rng.randint(40, 96)
        pen.rectangle((x, top, x + 42, horizon), fill=_shift(place.sky, -28))
        for y in range(top + 8, horizon - 8, 20):
            pen.rectangle((x + 8, y, x + 15, y + 9), fill=_shift(place.sky, 14))


def _tunnel(pen: ImageDraw.ImageDraw, rng: random.Random, place: Place, horizon: int) -> None:
    pen.arc((-20, 6, _FULL[0] + 20, horizon * 2), 180, 360, fill=_shift(place.sky, -26), width=16)
    for x in range(rng.randint(10, 40), _FULL[0], 64):
        pen.rectangle((x, 34, x + 22, 42), fill=(206, 196, 150))


def _burners(pen: ImageDraw.ImageDraw, rng: random.Random, place: Place, horizon: int) -> None:
    for x in range(rng.randint(10, 40), _FULL[0], 110):
        pen.ellipse((x, horizon + 34, x + 84, horizon + 66), outline=_shift(place.ground, 40), width=6)


def _crowd(pen: ImageDraw.ImageDraw, rng: random.Random, place: Place, horizon: int) -> None:
    for y in range(14, horizon - 6, 15):
        for x in range(rng.randint(0, 10), _FULL[0], 15):
            pen.ellipse((x, y, x + 9, y + 9), fill=_shift(place.sky, rng.choice((-36, -20, 18))))


_FEATURES: dict[str, Callable[[ImageDraw.ImageDraw, random.Random, Place, int], None]] = {
    "arches": _arches, "barn": _barn, "burners": _burners, "clouds": _clouds, "crowd": _crowd, "dunes": _dunes,
    "fence": _fence, "grid": _grid, "lanes": _lanes, "mountains": _mountains, "posts": _posts, "shelf": _shelf,
    "skyline": _skyline, "stripes": _stripes, "tiles": _tiles, "trees": _trees, "tufts": _tufts, "tunnel": _tunnel,
    "waves": _waves, "window": _window,
}  # fmt: skip
