"""The result of a summary: what the model answered, on what evidence, with which experts.

Numbers here are what the forward pass computed. The types refuse an answer that is empty or that
was made without video tokens: neither may be stored as a success.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, NonNegativeInt, PositiveInt

from contract.part import Part


class Frames(Part):
    """The frames that the model saw. `timestamps_s` are true presentation times in seconds."""

    count: PositiveInt
    timestamps_s: tuple[float, ...]


class VideoInfo(Part):
    """The uploaded video as decoded: `fps`, `width` and `height` are the file's own."""

    filename: str
    sha256: str
    duration_s: float = Field(ge=0)
    fps: float = Field(ge=0)
    width: PositiveInt
    height: PositiveInt
    frames: Frames


class DomainChoice(Part):
    """`scores` holds every candidate's score when the domain was chosen by `auto`, else nothing."""

    requested: str
    selected: str
    scores: dict[str, float] = Field(default_factory=dict)


class ModelInfo(Part):
    """What answered. `adapter` and `adapter_version` are null when the frozen backbone answered alone."""

    backbone: str
    backbone_fingerprint: str
    adapter: str | None = None
    adapter_version: int | None = None


class LayerGates(Part):
    """The gate of one adapted layer for this video: one weight per expert, summing to 1."""

    name: str
    group: Literal["temporal", "spatial"]
    experts: tuple[float, ...]


class GroupGates(Part):
    """One group's gate weights: the mean over its layers, and the mean entropy in nats."""

    experts: tuple[float, ...]
    entropy: float


class Gates(Part):
    """All gate weights of one answer. A group that the adapter does not have is null.

    `fusion_alpha` is null too where there is one group alone: nothing was fused.
    """

    fusion_alpha: float | None = Field(ge=0, le=1)
    temporal: GroupGates | None
    spatial: GroupGates | None
    layers: tuple[LayerGates, ...]


class Usage(Part):
    """Sizes of the work, in frames and tokens."""

    frames: PositiveInt
    video_tokens: PositiveInt
    prompt_tokens: PositiveInt
    completion_tokens: PositiveInt


class TimingsMs(Part):
    """Milliseconds per stage. `total` counts from creation to the end, so it includes waiting."""

    queued: NonNegativeInt
    decode: NonNegativeInt
    adapter: NonNegativeInt
    prefill: NonNegativeInt
    generate: NonNegativeInt
    total: NonNegativeInt


class Receipt(Part):
    """What it takes to get the same answer again. `seed` is null when decoding was greedy."""

    seed: int | None
    preprocessor: str
    software: str


class SummaryResult(Part):
    """A finished summary. `gates` is null when the frozen backbone answered alone."""

    id: str
    status: Literal["succeeded"] = "succeeded"
    video: VideoInfo
    summary: str = Field(pattern=r"\S")
    finish_reason: Literal["stop", "length"]
    domain: DomainChoice
    model: ModelInfo
    gates: Gates | None
    usage: Usage
    timings_ms: TimingsMs
    receipt: Receipt
