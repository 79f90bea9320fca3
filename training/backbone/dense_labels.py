"""Labels of dense vision pre-training: what is in every patch and in every token of a frame. Free of torch."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from training.backbone.sampling import MERGE, PATCH_COLUMNS, PATCH_ROWS, TOKEN_COLUMNS, TOKEN_ROWS
from training.world import COLOURS, KINDS, Box

KIND_INDEX = {kind: index + 1 for index, kind in enumerate(KINDS)}  # 0: nothing
COLOUR_INDEX = {colour: index for index, colour in enumerate(COLOURS)}
COVERED = 0.2  # a cell shows an object that fills at least this share of it, or of the object


@dataclass(frozen=True)
class FrameLabels:
    """Labels of ``T`` frames. Cells without an object have kind 0; their other labels mean nothing."""

    patch_kind: np.ndarray  # (T, 48) int64, patches in the processor's block order
    patch_colour: np.ndarray  # (T, 48) int64
    patch_centre: np.ndarray  # (T, 48) float32: whether an object's centre lies here
    token_kind: np.ndarray  # (T, 12) int64
    token_colour: np.ndarray  # (T, 12) int64
    token_left: np.ndarray  # (T, 12) float32: faces left
    token_centres: np.ndarray  # (T, 12) int64: how many objects' centres lie here, 0..3
    token_box: np.ndarray  # (T, 12, 3) float32: the object's centre from the token's, and its size, in tokens


def label_frames(frames: Sequence[Sequence[Box]]) -> FrameLabels:
    """Labels for each frame's boxes."""
    patches = [_cells(boxes, PATCH_ROWS, PATCH_COLUMNS) for boxes in frames]
    tokens = [_cells(boxes, TOKEN_ROWS, TOKEN_COLUMNS) for boxes in frames]
    order = block_order()
    return FrameLabels(
        patch_kind=np.stack([p["kind"] for p in patches])[:, order],
        patch_colour=np.stack([p["colour"] for p in patches])[:, order],
        patch_centre=(np.stack([p["centres"] for p in patches])[:, order] > 0).astype(np.float32),
        token_kind=np.stack([t["kind"] for t in tokens]),
        token_colour=np.stack([t["colour"] for t in tokens]),
        token_left=np.stack([t["left"] for t in tokens]),
        token_centres=np.minimum(np.stack([t["centres"] for t in tokens]), 3),
        token_box=np.stack([t["box"] for t in tokens]),
    )


def _cells(boxes: Sequence[Box], rows: int, columns: int) -> dict[str, np.ndarray]:
    """Labels of a grid in row-major order: each cell tells of the object that shows most in it."""
    count = rows * columns
    out = {
        "kind": np.zeros(count, np.int64),
        "colour": np.zeros(count, np.int64),
        "left": np.zeros(count, np.float32),
        "centres": np.zeros(count, np.int64),
        "box": np.zeros((count, 3), np.float32),
    }
    if not boxes:
        return out
    corners = np.array([(b.x0, b.y0, b.x1, b.y1) for b in boxes], np.float32) * (columns, rows, columns, rows)
    x0, y0, x1, y1 = corners.T[:, :, None]  # each (boxes, 1), in cells
    at_x, at_y = np.arange(columns), np.arange(rows)
    wide = np.clip(np.minimum(x1, at_x + 1) - np.maximum(x0, at_x), 0, 1)  # (boxes, columns)
    high = np.clip(np.minimum(y1, at_y + 1) - np.maximum(y0, at_y), 0, 1)  # (boxes, rows)
    area = (high[:, :, None] * wide[:, None, :]).reshape(len(boxes), count)
    share = np.maximum(area, area / np.maximum((x1 - x0) * (y1 - y0), 1e-6))
    main, shown = share.argmax(0), share.max(0) > COVERED
    middle_x, middle_y = (x0 + x1)[:, 0] / 2, (y0 + y1)[:, 0] / 2
    for x, y in zip(middle_x, middle_y, strict=True):
        if 0 <= x < columns and 0 <= y < rows:
            out["centres"][int(y) * columns + int(x)] += 1
    out["kind"] = np.array([KIND_INDEX[b.kind] for b in boxes])[main] * shown
    out["colour"] = np.array([COLOUR_INDEX[b.colour] for b in boxes])[main]
    out["left"] = np.array([b.facing_left for b in boxes], np.float32)[main]
    cell = np.arange(count)
    out["box"][:, 0] = middle_x[main] - (cell % columns + 0.5)
    out["box"][:, 1] = middle_y[main] - (cell // columns + 0.5)
    out["box"][:, 2] = (x1 - x0)[main, 0]
    return out


def block_order() -> np.ndarray:
    """Row-major index of each patch in block order."""
    grid = np.arange(PATCH_ROWS * PATCH_COLUMNS).reshape(TOKEN_ROWS, MERGE, TOKEN_COLUMNS, MERGE)
    return grid.transpose(0, 2, 1, 3).ravel()
