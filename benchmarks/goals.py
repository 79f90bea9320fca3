"""What ViSum is to reach, in one table, and the rows that say whether it does."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from benchmarks.report import Comparison, GoalRow, Row
from benchmarks.spread import Spread

MIXED, MIXED_PEFT, FROZEN = "mixed", "mixed beside peft", "one beside frozen"
XLORA, ROTATION, START = "x-lora", "rotation", "start"
LOAD, HOTSWAP = "load", "hotswap"
QUEUE, QUEUE_FORKED = "queue", "queue forked"
VIDEO, VIDEO_TORCHCODEC = "video", "video torchcodec"


@dataclass(frozen=True)
class Goal:
    """`least` is the smallest ratio that meets it; None where something is only measured."""

    name: str
    against: str
    least: float | None


_MIXED = "mixed batch of 8 over 8 domains"
_ONE = "the same batch on one domain"
_ADAPTER_NAMES = "PEFT `adapter_names` on equal LoRAs of rank K·r"
_DECODE = "MiLoRA, one domain"
_BACKBONE = "the frozen backbone without adapters"
_EXCHANGE = "exchange of a non-resident adapter, host to device"
_VIDEOS = "64 queued videos, jobs per minute"
_FRAMES = "32 frames from a 10-minute 1080p H.264 file"

#: key of a row → its goal. The order is that of the table.
GOALS: dict[str, Goal] = {
    f"{MIXED}, fp32": Goal(_MIXED, _ONE, 0.85),
    f"{MIXED}, bf16": Goal(_MIXED, _ONE, 0.95),
    f"{MIXED}, demo": Goal(_MIXED, _ONE, None),
    f"{MIXED}, gpu": Goal(_MIXED, _ONE, 0.97),
    f"{MIXED_PEFT}, fp32": Goal(_MIXED, _ADAPTER_NAMES, 1.3),
    f"{MIXED_PEFT}, bf16": Goal(_MIXED, _ADAPTER_NAMES, 2.0),
    f"{MIXED_PEFT}, gpu": Goal(_MIXED, _ADAPTER_NAMES, 4.0),
    f"{FROZEN}, fp32": Goal(_DECODE, _BACKBONE, 0.93),
    f"{FROZEN}, bf16": Goal(_DECODE, _BACKBONE, 0.88),
    f"{FROZEN}, gpu": Goal(_DECODE, _BACKBONE, 0.97),
    XLORA: Goal("whole answer with MiLoRA", "PEFT X-LoRA with K adapters", 2.0),
    ROTATION: Goal("100 domains in rotation through 8 resident slots", "8 domains", 0.9),
    LOAD: Goal(_EXCHANGE, "PEFT `load_adapter` from disk", 10.0),
    HOTSWAP: Goal(_EXCHANGE, "PEFT `hotswap_adapter`", 2.0),
    QUEUE: Goal(_VIDEOS, "RQ `SimpleWorker` with `generate` one by one", 3.0),
    QUEUE_FORKED: Goal(_VIDEOS, "RQ `Worker` that forks and loads the model per job", 10.0),
    VIDEO: Goal(_FRAMES, "`transformers.video_utils.load_video` with pyav", 5.0),
    VIDEO_TORCHCODEC: Goal(_FRAMES, "torchcodec", 0.9),
    START: Goal("worker start to ready, warm disk", "-", None),
}


def missed(row: Row) -> bool:
    """Whether a row has a goal and its median does not reach it."""
    least = GOALS[row.goal].least if row.goal else None
    return least is not None and row.ratio.median < least


def goal_rows(comparisons: Iterable[Comparison]) -> tuple[GoalRow, ...]:
    """Every row with a goal, in the order of the goals."""
    found = list(comparisons)
    order = list(GOALS)
    tagged = [(row.goal, _judged(row)) for part in found for row in part.rows if row.goal]
    tagged += [
        (share.goal, _measured(share.goal, share.value, f", {share.unit}"))
        for part in found
        for breakdown in part.breakdowns
        for share in breakdown.shares
        if share.goal
    ]
    return tuple(row for _, row in sorted(tagged, key=lambda pair: order.index(pair[0])))


def _judged(row: Row) -> GoalRow:
    assert row.goal is not None
    model = f" ({row.model})" if row.model else ""
    return _measured(row.goal, row.ratio, f", {row.metric}{model}")


def _measured(key: str, value: Spread, detail: str) -> GoalRow:
    goal = GOALS[key]
    return GoalRow(
        name=f"{goal.name}{detail}",
        against=goal.against,
        goal=goal.least,
        measured=value.median,
        low=value.low,
        high=value.high,
        met=None if goal.least is None else value.median >= goal.least,
    )
