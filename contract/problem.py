"""An error answer on the wire: RFC 9457 problem details with a stable code."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from contract.errors import Code

MEDIA_TYPE = "application/problem+json"


class FieldProblem(BaseModel):
    """One field of the request that was refused, and why."""

    model_config = ConfigDict(frozen=True)

    field: str
    message: str


class Problem(BaseModel):
    """The body of every error answer. `code` is for programs, `detail` for people."""

    model_config = ConfigDict(frozen=True)

    type: str = Field(default="about:blank", description="URI of the kind of problem")
    title: str = Field(description="The HTTP status in words")
    status: int = Field(description="The HTTP status code")
    code: Code = Field(description="Stable code; programs branch on this")
    detail: str = Field(description="What happened, in a sentence")
    instance: str | None = Field(default=None, description="Path of the request")
    errors: tuple[FieldProblem, ...] = Field(default=(), description="The fields that were refused")
