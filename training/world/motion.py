"""What a subject can do, as where it is, how large and how turned at each instant of its event."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Motion(StrEnum):
    """The eight actions of the world; their order is the class index of dense pre-training."""

    RIGHT = "right"
    LEFT = "left"
    UP = "up"
    DOWN = "down"
    WAIT = "wait"
    NEAR = "near"
    AWAY = "away"
    SPIN = "spin"


MOTIONS: tuple[Motion, ...] = tuple(Motion)

_GROUP_OFFSETS = {1: ((0, 0),), 2: ((-40, 14), (40, -14)), 3: ((-50, 24), (0, -28), (50, 24))}
_GROUP_SIZE = {1: 100.0, 2: 84.0, 3: 72.0}
_HALF_WIDTH = {1: 52, 2: 82, 3: 86}  # of the whole group, to keep it inside the picture


@dataclass(frozen=True)
class Pose:
    """One subject at one instant: centre and size in pixels of a 320 x 240 picture, angle in degrees."""

    x: float
    y: float
    size: float
    angle: float


def poses(motion: Motion, count: int, lane: float, phase: float) -> list[Pose]:
    """The poses of a group of ``count`` at ``phase`` (0..1) of its event.

    ``lane`` (0..1) says where across the direction of motion the group acts.
    """
    half = _HALF_WIDTH[count]
    x, y, scale, angle = half + lane * (320 - 2 * half), 95.0 + lane * 60, 1.0, 0.0
    if motion in (Motion.RIGHT, Motion.LEFT):
        along = phase if motion is Motion.RIGHT else 1 - phase
        x = half + along * (320 - 2 * half)
        y = 100 + lane * 60
    elif motion in (Motion.UP, Motion.DOWN):
        along = 1 - phase if motion is Motion.UP else phase
        y = 70 + along * 110
    elif motion in (Motion.NEAR, Motion.AWAY):
        along = phase if motion is Motion.NEAR else 1 - phase
        scale, y = 0.55 + 0.65 * along, 100 + 45 * along
    elif motion is Motion.SPIN:
        angle = 50 + 260 * phase
    size = _GROUP_SIZE[count] * scale
    return [Pose(x + dx * scale, y + dy * scale, size, angle) for dx, dy in _GROUP_OFFSETS[count]]
