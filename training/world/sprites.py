"""Pictograms as premultiplied pixels: drawn once, reduced to size, and kept."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw

from training.world.palette import RGB, outline, tone
from training.world.pictograms import PICTOGRAMS, Part

_CANVAS = 240
_MARGIN = 14  # room for the outline and for corners that a rotation moves outwards
SIZE_STEP = 4  # pixels; sizes are rounded to it so that the cache stays small
ANGLE_STEP = 30  # degrees, likewise


@lru_cache(maxsize=1024)
def _drawing(kind: str, colour: str) -> Image.Image:
    """The pictogram with its outline on a large RGBA canvas, facing right."""
    mask = Image.new("L", (_CANVAS, _CANVAS), 0)
    pen = ImageDraw.Draw(mask)
    for part in PICTOGRAMS[kind]:
        _draw(pen, part, 255, grow=8)
    canvas = Image.new("RGBA", (_CANVAS, _CANVAS), (*outline(colour), 0))
    canvas.putalpha(mask)
    pen = ImageDraw.Draw(canvas)
    for part in PICTOGRAMS[kind]:
        _draw(pen, part, (*tone(part.tone, colour), 255), grow=0)
    return canvas


def _draw(pen: ImageDraw.ImageDraw, part: Part, fill: int | tuple[int, int, int, int], grow: int) -> None:
    scale = (_CANVAS - 2 * _MARGIN) / 100
    points = [(_MARGIN + x * scale, _MARGIN + y * scale) for x, y in part.points]
    if part.shape in ("box", "oval"):
        (x0, y0), (x1, y1) = points
        corners = (x0 - grow, y0 - grow, x1 + grow, y1 + grow)
        (pen.rectangle if part.shape == "box" else pen.ellipse)(corners, fill=fill)
    elif part.shape == "poly":
        pen.polygon(points, fill=fill)
        if grow:
            pen.line([*points, points[0]], fill=fill, width=2 * grow, joint="curve")
    else:
        width = round(part.width * scale) + 2 * grow
        pen.line(points, fill=fill, width=width, joint="curve")
        for x, y in (points[0], points[-1]):
            pen.ellipse((x - width / 2, y - width / 2, x + width / 2, y + width / 2), fill=fill)


@lru_cache(maxsize=6144)
def sprite(
    kind: str, colour: str, size: int, facing_left: bool, angle: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """The pictogram as ``(rgb, keep)``, both (size, size, 3) uint16: a frame becomes ``(frame * keep + rgb) >> 8``."""
    image = _drawing(kind, colour)
    if facing_left:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if angle:
        image = image.rotate(angle, resample=Image.Resampling.BILINEAR)
    pixels = np.asarray(image.resize((size, size), Image.Resampling.BOX), dtype=np.float32)
    alpha = pixels[..., 3:] / 255.0
    rgb = np.round(pixels[..., :3] * alpha * 256).astype(np.uint16)
    keep = np.round((1.0 - np.broadcast_to(alpha, rgb.shape)) * 256).astype(np.uint16)
    return np.minimum(rgb, 255 * 256), keep


def blend(
    frame: np.ndarray,
    kind: str,
    colour: str,
    centre: tuple[float, float],
    size: float,
    facing_left: bool,
    angle: float,
) -> None:
    """Draws a pictogram into ``frame`` (H, W, 3) uint8 in place, clipped at the borders."""
    pixels = max(SIZE_STEP, round(size / SIZE_STEP) * SIZE_STEP)
    rgb, keep = sprite(kind, colour, pixels, facing_left, round(angle / ANGLE_STEP) * ANGLE_STEP % 360)
    left, top = round(centre[0] - pixels / 2), round(centre[1] - pixels / 2)
    x0, y0 = max(0, left), max(0, top)
    x1, y1 = min(frame.shape[1], left + pixels), min(frame.shape[0], top + pixels)
    if x0 >= x1 or y0 >= y1:
        return
    part = (slice(y0 - top, y1 - top), slice(x0 - left, x1 - left))
    patch = frame[y0:y1, x0:x1]
    patch[...] = (patch * keep[part] + rgb[part]) >> 8


def flat(frame: np.ndarray, box: tuple[float, float, float, float], rgb: RGB) -> None:
    """Fills a rectangle of ``frame`` (x0, y0, x1, y1 in pixels), clipped at the borders."""
    x0, y0, x1, y1 = (round(value) for value in box)
    frame[max(0, y0) : max(0, y1), max(0, x0) : max(0, x1)] = rgb
