"""How much may be in flight in the memory that is free."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch

from tests.tiny_backbone import tiny_config
from workers.memory_plan import (
    CPU_SHARE,
    CachePlan,
    available_bytes,
    cache_budget,
    cache_bytes_per_token,
    plan_cache,
    prefill_bytes,
)

TEXT = tiny_config().text_config
PER_TOKEN = 2 * 2 * 2 * 8 * 4  # keys and values, layers, heads, head width, bytes


def plan(budget: int, rows: int = 8, length: int = 1000) -> CachePlan:
    return plan_cache(TEXT, torch.float32, rows=rows, length=length, budget=budget)


def test_a_position_costs_keys_and_values_of_every_layer() -> None:
    assert cache_bytes_per_token(TEXT, torch.float32) == PER_TOKEN
    assert cache_bytes_per_token(TEXT, torch.bfloat16) == PER_TOKEN // 2


def test_what_is_wanted_is_planned_where_it_fits() -> None:
    assert plan(8 * 1000 * PER_TOKEN) == CachePlan(8, 1000)


def test_rows_are_given_up_before_length(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert plan(3 * 1000 * PER_TOKEN + 1) == CachePlan(3, 1000)
    assert "3 requests of 1000 tokens at once, not 8 of 1000" in caplog.text


def test_a_single_row_is_as_long_as_the_memory_is() -> None:
    assert plan(400 * PER_TOKEN) == CachePlan(1, 400)
    assert plan(0) == CachePlan(1, 1)


def test_no_row_is_longer_than_the_backbone_reads() -> None:
    assert plan(1 << 40, length=10**6).length == TEXT.max_position_embeddings


def test_what_is_spoken_for_is_not_planned_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workers.memory_plan.available_bytes", lambda: 1000)
    assert cache_budget(torch.device("cpu"), 400) == int(600 * CPU_SHARE)
    assert cache_budget(torch.device("cpu"), 2000) == 0


def test_a_prefill_takes_its_keys_and_values_and_its_largest_layer() -> None:
    few, many = (prefill_bytes(tiny_config(), torch.float32, tokens) for tokens in (10, 100))
    assert many == 10 * few > 100 * PER_TOKEN


@pytest.mark.parametrize(
    ("limit", "current", "free"), [("max", "0", 4 << 20), ("3145728", "1572864", 2 << 20)]
)
def test_a_containers_limit_counts_where_it_is_less(
    tmp_path: Path, limit: str, current: str, free: int
) -> None:
    (tmp_path / "meminfo").write_text("MemTotal: 9999 kB\nMemAvailable: 4096 kB\n")
    (tmp_path / "memory.max").write_text(limit)
    (tmp_path / "memory.current").write_text(current)
    (tmp_path / "memory.stat").write_text("anon 1048576\ninactive_file 524288\n")
    assert available_bytes(tmp_path / "meminfo", tmp_path) == free


def test_a_system_that_does_not_say_is_taken_for_a_small_machine(tmp_path: Path) -> None:
    assert available_bytes(tmp_path / "none", tmp_path) == 4 << 30
