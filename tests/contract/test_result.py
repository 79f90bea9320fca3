"""What may be stored as a success."""

from __future__ import annotations

import math
from typing import Any

import pytest
from pydantic import ValidationError

from contract.result import SummaryResult


def changed(result: SummaryResult, part: str, value: object) -> dict[str, Any]:
    """The result's JSON with one place changed; dots separate levels."""
    fields = result.model_dump()
    *path, last = part.split(".")
    inner = fields
    for name in path:
        inner = inner[name]
    inner[last] = value
    return fields


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("summary", ""),
        ("summary", " \n"),
        ("usage.video_tokens", 0),
        ("usage.frames", 0),
        ("usage.completion_tokens", 0),
        ("video.frames.count", 0),
        ("gates.fusion_alpha", math.nan),
        ("gates.layers", [{"name": "q", "group": "other", "experts": [1.0]}]),
        ("domain.scores", {"traffic": math.inf}),
        ("status", "failed"),
    ],
)
def test_a_success_without_evidence_or_answer_can_not_be_made(
    result: SummaryResult, part: str, value: object
) -> None:
    with pytest.raises(ValidationError, match=part.rpartition(".")[2]):
        SummaryResult.model_validate(changed(result, part, value))


def test_one_group_alone_has_no_fusion(result: SummaryResult) -> None:
    fields = changed(result, "gates.fusion_alpha", None)
    fields["gates"]["spatial"] = None
    gates = SummaryResult.model_validate(fields).gates
    assert gates is not None
    assert gates.fusion_alpha is None


def test_the_backbone_alone_has_no_gates(result: SummaryResult) -> None:
    fields = changed(result, "gates", None)
    fields["model"].update(adapter=None, adapter_version=None)
    assert SummaryResult.model_validate(fields).gates is None
