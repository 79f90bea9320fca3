"""The objects of the demo world, each drawn from a few primitives on a 100 x 100 canvas, facing right.

No pictogram is symmetric under rotation, so that a spinning object can be told from a waiting one.
"""

from __future__ import annotations

from dataclasses import dataclass

Point = tuple[float, float]


@dataclass(frozen=True)
class Part:
    """One primitive: its shape, its points in canvas units, its tone (body, shade, dark, light) and line width."""

    shape: str  # "box", "oval", "poly" or "line"
    points: tuple[Point, ...]
    tone: str
    width: float = 0.0


def _box(x0: float, y0: float, x1: float, y1: float, tone: str = "body") -> Part:
    return Part("box", ((x0, y0), (x1, y1)), tone)


def _oval(x0: float, y0: float, x1: float, y1: float, tone: str = "body") -> Part:
    return Part("oval", ((x0, y0), (x1, y1)), tone)


def _disc(x: float, y: float, radius: float, tone: str = "body") -> Part:
    return _oval(x - radius, y - radius, x + radius, y + radius, tone)


def _poly(*xy: float, tone: str = "body") -> Part:
    return Part("poly", tuple(zip(xy[::2], xy[1::2], strict=True)), tone)


def _line(*xy: float, width: float = 7, tone: str = "body") -> Part:
    return Part("line", tuple(zip(xy[::2], xy[1::2], strict=True)), tone, width)


PICTOGRAMS: dict[str, tuple[Part, ...]] = {
    # general: playroom
    "ball": (_disc(50, 50, 44), _poly(50, 6, 94, 50, 50, 50, tone="light"), _disc(34, 66, 9, "dark")),
    "robot": (
        _box(24, 8, 76, 42),
        _box(30, 18, 44, 30, "light"),
        _box(56, 18, 70, 30, "light"),
        _box(16, 46, 84, 78, "shade"),
        _box(26, 78, 42, 96, "dark"),
        _box(58, 78, 74, 96, "dark"),
    ),
    "drum": (
        _box(14, 34, 86, 88),
        _oval(14, 20, 86, 48, "light"),
        _line(20, 44, 50, 86, 80, 44, width=5, tone="dark"),
        _line(60, 26, 94, 4, width=6, tone="dark"),
    ),
    "train": (
        _box(6, 40, 70, 74),
        _box(40, 14, 70, 44, "shade"),
        _box(74, 22, 84, 56, "dark"),
        _box(70, 50, 96, 74),
        _disc(22, 82, 12, "dark"),
        _disc(52, 82, 12, "dark"),
        _disc(82, 82, 12, "dark"),
    ),
    "kite": (
        _poly(60, 4, 92, 40, 46, 66, 26, 24),
        _line(60, 4, 46, 66, width=5, tone="light"),
        _line(46, 66, 30, 80, 38, 90, 14, 96, width=5, tone="dark"),
    ),
    "block": (
        _box(10, 30, 72, 92),
        _poly(10, 30, 30, 10, 92, 10, 72, 30, tone="light"),
        _poly(72, 30, 92, 10, 92, 72, 72, 92, tone="shade"),
        _disc(40, 62, 14, "dark"),
    ),
    # general: harbour
    "sailboat": (
        _poly(8, 74, 92, 74, 76, 94, 22, 94, tone="dark"),
        _poly(48, 6, 48, 68, 88, 68),
        _poly(42, 18, 42, 68, 14, 68, tone="light"),
    ),
    "ferry": (
        _poly(4, 58, 96, 58, 84, 90, 14, 90),
        _box(18, 36, 78, 58, "light"),
        _box(26, 42, 36, 52, "dark"),
        _box(44, 42, 54, 52, "dark"),
        _box(30, 10, 44, 36, "shade"),
    ),
    "submarine": (
        _oval(4, 42, 96, 86),
        _box(44, 20, 66, 50, "shade"),
        _line(60, 24, 60, 6, 76, 6, width=6, tone="dark"),
        _disc(72, 62, 8, "light"),
        _disc(50, 62, 8, "light"),
    ),
    "buoy": (
        _poly(40, 10, 60, 10, 76, 64, 24, 64),
        _box(30, 34, 70, 46, "light"),
        _oval(6, 58, 94, 92, "dark"),
    ),
    "anchor": (
        _line(50, 24, 50, 88, width=11),
        _disc(50, 16, 13),
        _disc(50, 16, 6, "light"),
        _line(28, 40, 72, 40, width=9),
        _line(12, 58, 24, 84, 50, 92, 76, 84, 88, 58, width=10),
    ),
    "whale": (
        _oval(18, 34, 96, 90),
        _poly(30, 60, 2, 34, 4, 62, 10, 82),
        _disc(80, 54, 5, "light"),
        _oval(46, 72, 94, 90, "light"),
        _line(66, 32, 60, 10, width=6, tone="light"),
        _line(68, 32, 80, 10, width=6, tone="light"),
    ),
    # general: farm
    "tractor": (
        _disc(30, 68, 26, "dark"),
        _disc(30, 68, 11, "light"),
        _disc(80, 80, 14, "dark"),
        _box(34, 44, 94, 68),
        _box(30, 12, 62, 46, "shade"),
        _box(38, 20, 56, 38, "light"),
        _box(78, 22, 85, 44, "dark"),
    ),
    "pig": (
        _oval(10, 30, 82, 82),
        _disc(80, 44, 18),
        _box(90, 40, 99, 54, "shade"),
        _poly(68, 30, 72, 12, 84, 26, tone="shade"),
        _box(24, 74, 34, 96, "shade"),
        _box(58, 74, 68, 96, "shade"),
        _disc(84, 38, 4, "dark"),
        _line(10, 50, 2, 40, width=5, tone="shade"),
    ),
    "hen": (
        _oval(16, 36, 74, 84),
        _disc(74, 32, 16),
        _poly(88, 28, 99, 34, 88, 40, tone="dark"),
        _poly(16, 60, 2, 22, 34, 42, tone="shade"),
        _line(44, 82, 44, 98, width=5, tone="dark"),
        _poly(66, 18, 74, 2, 84, 18, tone="shade"),
    ),
    "cart": (
        _poly(6, 34, 80, 34, 72, 66, 16, 66),
        _line(78, 46, 98, 30, width=6, tone="dark"),
        _disc(30, 80, 15, "dark"),
        _disc(30, 80, 6, "light"),
        _disc(62, 80, 15, "dark"),
        _disc(62, 80, 6, "light"),
    ),
    "windmill": (
        _poly(36, 40, 64, 40, 76, 96, 24, 96),
        _line(50, 36, 12, 10, width=10, tone="light"),
        _line(50, 36, 88, 14, width=10, tone="light"),
        _line(50, 36, 84, 66, width=10, tone="shade"),
        _line(50, 36, 14, 62, width=10, tone="shade"),
        _disc(50, 36, 7, "dark"),
    ),
    "pumpkin": (
        _oval(6, 30, 54, 90),
        _oval(46, 30, 94, 90),
        _oval(26, 28, 74, 92, "shade"),
        _line(50, 30, 58, 8, width=9, tone="dark"),
    ),
    # general: sky
    "balloon": (
        _oval(20, 2, 80, 64),
        _poly(28, 50, 72, 50, 58, 74, 42, 74),
        _oval(40, 2, 60, 64, "light"),
        _box(40, 78, 60, 96, "dark"),
    ),
    "airplane": (
        _oval(4, 40, 96, 62),
        _poly(36, 50, 60, 50, 34, 94, 22, 94, tone="shade"),
        _poly(40, 46, 58, 46, 40, 14, 30, 14, tone="shade"),
        _poly(6, 48, 20, 48, 10, 20, 2, 20),
        _disc(84, 49, 5, "light"),
    ),
    "helicopter": (
        _oval(30, 34, 90, 82),
        _box(2, 48, 40, 58),
        _box(2, 34, 10, 62, "shade"),
        _line(18, 24, 98, 24, width=7, tone="dark"),
        _line(60, 24, 60, 36, width=6, tone="dark"),
        _oval(64, 42, 88, 64, "light"),
        _line(36, 90, 88, 90, width=6, tone="dark"),
    ),
    "zeppelin": (
        _oval(8, 18, 98, 68),
        _poly(18, 34, 2, 12, 2, 74, 18, 54, tone="shade"),
        _box(40, 66, 70, 82, "dark"),
        _line(14, 43, 94, 43, width=6, tone="light"),
    ),
    "rocket": (
        _poly(50, 2, 72, 34, 72, 78, 28, 78, 28, 34),
        _poly(28, 54, 8, 88, 28, 80, tone="shade"),
        _poly(72, 54, 92, 88, 72, 80, tone="shade"),
        _disc(50, 42, 11, "light"),
        _poly(38, 80, 62, 80, 50, 99, tone="dark"),
    ),
    "parachute": (
        _poly(6, 44, 14, 20, 36, 6, 64, 6, 86, 20, 94, 44),
        _poly(38, 44, 50, 6, 62, 44, tone="light"),
        _line(8, 44, 50, 82, 92, 44, width=4, tone="dark"),
        _box(40, 76, 62, 98, "shade"),
    ),
    # general: workshop
    "hammer": (_line(22, 94, 60, 34, width=12, tone="dark"), _poly(34, 14, 50, 4, 92, 36, 82, 52, 60, 38)),
    "gear": (
        _disc(50, 50, 32),
        _box(42, 4, 58, 96),
        _box(4, 42, 96, 58),
        _line(20, 20, 80, 80, width=14),
        _disc(50, 50, 14, "light"),
        _disc(82, 18, 10, "dark"),
    ),
    "key": (
        _disc(26, 36, 23),
        _disc(26, 36, 10, "light"),
        _line(44, 44, 94, 66, width=12),
        _line(84, 62, 76, 84, width=9),
        _line(66, 54, 60, 72, width=9),
    ),
    "bell": (
        _poly(36, 14, 64, 14, 76, 64, 90, 78, 10, 78, 24, 64),
        _disc(50, 88, 10, "dark"),
        _disc(50, 10, 8, "dark"),
        _line(34, 26, 28, 62, width=6, tone="light"),
    ),
    "lamp": (
        _poly(32, 6, 68, 6, 90, 50, 10, 50),
        _line(50, 50, 50, 88, width=9, tone="dark"),
        _box(24, 86, 76, 97, "dark"),
        _line(70, 50, 70, 66, width=4, tone="light"),
    ),
    "umbrella": (
        _poly(4, 50, 16, 22, 50, 6, 84, 22, 96, 50),
        _poly(34, 50, 50, 8, 66, 50, tone="shade"),
        _line(50, 46, 50, 90, 64, 92, 66, 80, width=7, tone="dark"),
    ),
    # general: shapes
    "triangle": (_poly(50, 6, 96, 90, 4, 90), _disc(50, 62, 10, "dark")),
    "star": (
        _poly(50, 2, 62, 36, 98, 38, 70, 60, 80, 96, 50, 76, 20, 96, 30, 60, 2, 38, 38, 36),
        _disc(50, 36, 8, "dark"),
    ),
    "ring": (_disc(50, 50, 45), _disc(50, 50, 24, "light"), _box(42, 2, 58, 28, "dark")),
    "arrow": (_box(6, 36, 58, 64), _poly(54, 10, 96, 50, 54, 90)),
    "heart": (_disc(30, 34, 25), _disc(70, 34, 25), _poly(8, 44, 92, 44, 50, 94), _disc(32, 30, 8, "light")),
    "moon": (_disc(46, 50, 44), _disc(68, 42, 34, "dark")),
    # traffic
    "car": (
        _box(4, 48, 96, 76),
        _poly(22, 48, 34, 24, 70, 24, 84, 48),
        _poly(38, 46, 42, 30, 66, 30, 74, 46, tone="light"),
        _disc(26, 78, 13, "dark"),
        _disc(76, 78, 13, "dark"),
    ),
    "bus": (
        _box(2, 18, 98, 78),
        _box(8, 28, 24, 48, "light"),
        _box(30, 28, 46, 48, "light"),
        _box(52, 28, 68, 48, "light"),
        _box(80, 28, 98, 62, "light"),
        _disc(24, 80, 12, "dark"),
        _disc(76, 80, 12, "dark"),
    ),
    "lorry": (
        _box(2, 14, 62, 74),
        _box(66, 34, 96, 74, "shade"),
        _box(80, 40, 96, 54, "light"),
        _disc(18, 80, 12, "dark"),
        _disc(46, 80, 12, "dark"),
        _disc(82, 80, 12, "dark"),
    ),
    "bicycle": (
        _disc(22, 70, 22),
        _disc(22, 70, 13, "light"),
        _disc(78, 70, 22),
        _disc(78, 70, 13, "light"),
        _line(22, 70, 40, 36, 70, 36, 50, 70, 22, 70, width=7),
        _line(78, 70, 66, 22, 80, 18, width=7, tone="dark"),
        _line(30, 30, 46, 30, width=8, tone="dark"),
    ),
    "tram": (
        _box(8, 26, 92, 82),
        _line(50, 26, 34, 6, 66, 6, width=5, tone="dark"),
        _box(16, 36, 46, 58, "light"),
        _box(54, 36, 84, 58, "light"),
        _box(14, 68, 86, 74, "shade"),
        _box(18, 82, 82, 94, "dark"),
    ),
    "scooter": (
        _line(14, 76, 78, 76, width=10),
        _line(78, 76, 68, 12, width=9),
        _line(54, 14, 80, 8, width=8, tone="dark"),
        _disc(14, 84, 12, "dark"),
        _disc(82, 84, 12, "dark"),
        _poly(8, 74, 12, 40, 40, 40, 44, 74, tone="shade"),
    ),
    # cooking
    "pan": (
        _oval(2, 40, 62, 84),
        _oval(10, 46, 54, 72, "dark"),
        _line(58, 56, 98, 34, width=10, tone="shade"),
    ),
    "kettle": (
        _poly(22, 40, 70, 40, 84, 90, 10, 90),
        _poly(74, 60, 98, 34, 90, 66, 80, 76, tone="shade"),
        _line(24, 38, 30, 12, 62, 12, 68, 38, width=7, tone="dark"),
        _disc(46, 34, 8, "dark"),
    ),
    "carrot": (
        _poly(96, 88, 30, 56, 20, 30, 44, 22, 66, 34),
        _line(28, 34, 4, 22, width=9, tone="dark"),
        _line(30, 30, 14, 4, width=9, tone="dark"),
        _line(34, 28, 36, 4, width=9, tone="dark"),
    ),
    "fish": (
        _oval(22, 26, 98, 76),
        _poly(32, 50, 2, 22, 8, 50, 2, 80, tone="shade"),
        _disc(82, 44, 6, "dark"),
        _poly(50, 30, 64, 8, 70, 30, tone="shade"),
        _line(66, 34, 62, 68, width=4, tone="light"),
    ),
    "spoon": (_oval(56, 4, 96, 46), _line(64, 40, 8, 94, width=11), _oval(64, 12, 86, 34, "shade")),
    "bowl": (
        _poly(2, 44, 98, 44, 84, 78, 64, 92, 36, 92, 16, 78),
        _oval(2, 34, 98, 54, "dark"),
        _line(66, 40, 90, 8, width=7, tone="light"),
    ),
    # sports
    "runner": (
        _disc(62, 14, 13),
        _line(56, 30, 46, 60, width=15),
        _line(54, 34, 84, 48, width=9),
        _line(54, 34, 24, 46, width=9),
        _line(46, 60, 76, 70, 70, 96, width=10),
        _line(46, 60, 28, 82, 6, 84, width=10),
    ),
    "skier": (
        _disc(58, 16, 12),
        _poly(42, 28, 68, 34, 54, 66, 36, 60),
        _line(48, 62, 70, 74, width=11),
        _line(4, 80, 98, 94, width=8, tone="dark"),
        _line(62, 38, 88, 54, 78, 88, width=6, tone="light"),
    ),
    "kayak": (
        _poly(2, 56, 98, 56, 78, 80, 22, 80),
        _disc(50, 26, 12, "dark"),
        _box(42, 36, 58, 58, "shade"),
        _line(14, 24, 88, 64, width=6, tone="light"),
        _disc(16, 24, 9, "light"),
        _disc(86, 64, 9, "light"),
    ),
    "racket": (
        _oval(36, 2, 98, 62),
        _oval(46, 12, 88, 52, "light"),
        _line(46, 54, 8, 94, width=12, tone="dark"),
        _line(50, 32, 86, 32, width=4, tone="shade"),
        _line(67, 12, 67, 52, width=4, tone="shade"),
    ),
    "football": (
        _disc(50, 50, 44, "light"),
        _poly(50, 28, 72, 44, 64, 70, 36, 70, 28, 44),
        _poly(12, 30, 36, 8, 34, 24, tone="body"),
        _poly(94, 36, 78, 14, 70, 26, tone="body"),
        _poly(30, 90, 60, 94, 50, 82, tone="body"),
    ),
    "trophy": (
        _poly(22, 8, 78, 8, 70, 46, 56, 58, 44, 58, 30, 46),
        _line(22, 14, 6, 18, 12, 38, 30, 42, width=7),
        _line(78, 14, 94, 18, 88, 38, 70, 42, width=7),
        _box(44, 56, 56, 78, "shade"),
        _box(26, 78, 74, 94, "dark"),
    ),
    # wildlife
    "elephant": (
        _oval(6, 22, 72, 74),
        _disc(74, 38, 22),
        _oval(52, 22, 74, 58, "shade"),
        _line(90, 42, 94, 70, 86, 84, width=10),
        _box(14, 66, 28, 96),
        _box(48, 66, 62, 96),
        _disc(82, 34, 4, "dark"),
    ),
    "giraffe": (
        _oval(8, 46, 62, 72),
        _line(52, 54, 72, 12, width=13),
        _poly(66, 4, 96, 14, 92, 24, 68, 22),
        _box(12, 66, 20, 98),
        _box(48, 66, 56, 98),
        _disc(26, 58, 6, "dark"),
        _disc(42, 60, 6, "dark"),
        _disc(64, 34, 5, "dark"),
    ),
    "parrot": (
        _oval(30, 18, 78, 76),
        _disc(68, 22, 18),
        _poly(82, 16, 98, 26, 82, 36, tone="dark"),
        _poly(40, 66, 8, 98, 30, 98, 58, 72, tone="shade"),
        _oval(34, 34, 58, 70, "shade"),
        _disc(72, 18, 5, "light"),
    ),
    "turtle": (
        _poly(10, 66, 20, 34, 46, 22, 68, 34, 78, 66),
        _oval(74, 44, 98, 68, "shade"),
        _box(14, 64, 76, 74, "dark"),
        _box(18, 72, 32, 88, "shade"),
        _box(56, 72, 70, 88, "shade"),
        _poly(36, 54, 44, 34, 56, 54, tone="light"),
    ),
    "snake": (
        _line(4, 84, 22, 66, 40, 84, 58, 66, 76, 78, 80, 40, width=14),
        _oval(66, 16, 98, 44),
        _disc(84, 26, 4, "dark"),
        _line(94, 34, 99, 46, width=4, tone="dark"),
        _line(22, 66, 40, 84, width=4, tone="light"),
    ),
    "crab": (
        _oval(16, 44, 84, 84),
        _line(24, 52, 8, 26, width=8),
        _line(76, 52, 92, 26, width=8),
        _disc(10, 18, 12),
        _disc(90, 18, 12),
        _line(24, 80, 10, 96, width=6, tone="shade"),
        _line(76, 80, 90, 96, width=6, tone="shade"),
        _disc(40, 46, 7, "dark"),
        _disc(60, 46, 7, "dark"),
    ),
    # laboratory, which the backbone never saw
    "flask": (
        _poly(40, 8, 60, 8, 60, 38, 92, 92, 8, 92, 40, 38),
        _box(34, 4, 66, 14, "dark"),
        _poly(26, 66, 74, 66, 88, 90, 12, 90, tone="light"),
        _line(66, 22, 92, 14, width=6, tone="dark"),
    ),
    "magnet": (
        _oval(10, 40, 90, 96),
        _oval(34, 46, 66, 74, "light"),
        _box(10, 10, 34, 66),
        _box(66, 10, 90, 66),
        _box(10, 6, 34, 24, "dark"),
        _box(66, 6, 90, 24, "light"),
    ),
    "microscope": (
        _box(14, 84, 86, 96, "dark"),
        _line(44, 84, 80, 66, 66, 44, width=10, tone="shade"),
        _line(38, 12, 62, 54, width=18),
        _box(24, 66, 62, 74, "shade"),
        _disc(36, 10, 8, "light"),
    ),
    "battery": (
        _box(8, 26, 84, 78),
        _box(84, 42, 96, 62, "dark"),
        _box(8, 26, 32, 78, "shade"),
        _line(50, 52, 72, 52, width=6, tone="light"),
        _line(61, 41, 61, 63, width=6, tone="light"),
    ),
    "thermometer": (
        _line(42, 14, 42, 70, width=20),
        _disc(42, 80, 17),
        _line(42, 40, 42, 80, width=7, tone="light"),
        _line(60, 18, 90, 18, width=6, tone="dark"),
        _line(60, 36, 80, 36, width=6, tone="dark"),
        _line(60, 54, 90, 54, width=6, tone="dark"),
    ),
    "prism": (
        _poly(6, 90, 44, 8, 82, 90),
        _poly(44, 8, 82, 90, 56, 90, tone="shade"),
        _line(62, 50, 98, 40, width=5, tone="light"),
        _line(66, 60, 98, 66, width=5, tone="dark"),
    ),
}

#: Those of the general and the shipped domains: the classes of dense pre-training.
KINDS: tuple[str, ...] = tuple(PICTOGRAMS)[: list(PICTOGRAMS).index("flask")]
