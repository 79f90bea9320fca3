"""The eight colours of the demo world and the neutral tones that pictograms are detailed with."""

from __future__ import annotations

RGB = tuple[int, int, int]

COLOURS: dict[str, RGB] = {
    "red": (214, 40, 40),
    "orange": (245, 140, 20),
    "yellow": (250, 220, 40),
    "green": (40, 160, 60),
    "blue": (40, 90, 220),
    "purple": (145, 60, 190),
    "white": (248, 248, 248),
    "black": (24, 24, 28),
}

_TONES: dict[str, RGB] = {"dark": (46, 46, 52), "light": (232, 232, 226)}


def tone(name: str, colour: str) -> RGB:
    """The RGB of a pictogram part: ``body`` and ``shade`` follow the subject's colour, the rest is neutral."""
    body = COLOURS[colour]
    if name == "body":
        return body
    if name == "shade":
        lift = 70 if colour == "black" else -60
        return (_clamp(body[0] + lift), _clamp(body[1] + lift), _clamp(body[2] + lift))
    if colour == "black" and name == "dark":  # a dark detail on a black body would vanish
        return (120, 120, 128)
    return _TONES[name]


def outline(colour: str) -> RGB:
    """An outline that keeps the subject apart from any background."""
    return (205, 205, 205) if colour == "black" else (30, 30, 34)


def _clamp(value: int) -> int:
    return max(0, min(255, value))
