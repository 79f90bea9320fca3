"""The base of everything that is stored as JSON."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Part(BaseModel):
    """A piece of a stored record: immutable; a field of nobody, NaN or infinity in it is damage."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
