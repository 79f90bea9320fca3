"""What the workers serve, told to the gateway through Redis: it may run where no weights are."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

if TYPE_CHECKING:
    from redis import Redis

BACKBONE_KEY = "visum:backbone"


class ServedBackbone(BaseModel):
    """The frozen backbone in service. Adapters trained on another fingerprint can't be used with it."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    name: str
    fingerprint: str
    domain: str = "general"
    description: str = ""
    notice: str = Field(default="", description="What it says of itself to whoever uses it")
    quality: dict[str, JsonValue] = Field(default_factory=dict)


def announce(redis: Redis, backbone: ServedBackbone) -> None:
    """A worker that has loaded its backbone says so; the last one that does is believed."""
    redis.set(BACKBONE_KEY, backbone.model_dump_json())


def served_backbone(redis: Redis) -> ServedBackbone | None:
    """The backbone in service; None before any worker has said (or when it can't be read)."""
    raw = redis.get(BACKBONE_KEY)
    try:
        return None if raw is None else ServedBackbone.model_validate_json(raw)
    except ValidationError:
        return None
