"""What the terminal shows of an answer."""

from __future__ import annotations

import copy
import io
from typing import Any

import pytest
from rich.console import Console

from visum.chart import bar, show_result

RECORD: dict[str, Any] = {
    "status": "succeeded",
    "error": None,
    "result": {
        "video": {"duration_s": 8.0, "frames": {"count": 8}},
        "summary": "One [red] car heads east.",
        "domain": {"requested": "auto", "selected": "traffic", "scores": {"traffic": 0.93, "cooking": 0.07}},
        "model": {"backbone": "visum-demo", "adapter": "traffic", "adapter_version": 3},
        "gates": {
            "temporal": {"experts": [0.75, 0.25], "entropy": 0.56},
            "spatial": {"experts": [1.0], "entropy": 0.0},
        },
        "timings_ms": {"queued": 1, "decode": 20, "adapter": 0, "prefill": 30, "generate": 40, "total": 91},
    },
}


def shown(record: dict[str, Any]) -> str:
    console = Console(file=io.StringIO(), width=120, highlight=False)
    show_result(console, "clip.mp4", record)
    return console.file.getvalue()  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("share", "cells"), [(0.0, ""), (0.5, "████"), (1.0, "████████"), (1 / 64, "▏"), (2.0, "█" * 8)]
)
def test_a_bar_is_as_long_as_its_share(share: float, cells: str) -> None:
    assert bar(share, cells=8) == cells


def test_every_expert_of_every_group_gets_a_bar() -> None:
    text = shown(RECORD)
    assert "temporal  expert 1  0.75 ████████████████████████" in text
    assert "          expert 2  0.25 ████████" in text
    assert "spatial   expert 1  1.00 " in text


def test_a_summary_with_brackets_is_printed_as_it_is() -> None:
    assert "One [red] car heads east." in shown(RECORD)


def test_the_chosen_domain_and_the_version_that_answered_are_named() -> None:
    text = shown(RECORD)
    assert "domain traffic (auto, 0.93)" in text
    assert "experts traffic v3" in text


def test_an_answer_without_experts_shows_no_gates() -> None:
    record = copy.deepcopy(RECORD)
    record["result"]["gates"] = None
    record["result"]["model"].update(adapter=None, adapter_version=None)
    text = shown(record)
    assert "no experts, so no gates" in text
    assert "expert 1" not in text


def test_a_group_that_the_adapter_does_not_have_is_left_out() -> None:
    record = copy.deepcopy(RECORD)
    record["result"]["gates"]["spatial"] = None
    assert "spatial" not in shown(record)


def test_a_failure_is_one_line_with_its_code() -> None:
    error = {"code": "video.undecodable", "message": "The video cannot be decoded."}
    text = shown({"status": "failed", "error": error, "result": None})
    assert text == "clip.mp4: failed: The video cannot be decoded. [video.undecodable]\n"
