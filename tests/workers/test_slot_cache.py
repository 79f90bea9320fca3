"""Keys and values by row: written by prefills and steps, moved when rows close up."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from transformers import DynamicCache

from workers.slot_cache import SlotCache

LAYERS, ROWS, LENGTH, HEADS, WIDTH = 2, 3, 10, 2, 4


def empty(dtype: torch.dtype = torch.float32) -> SlotCache:
    return SlotCache(
        layers=LAYERS,
        rows=ROWS,
        length=LENGTH,
        heads=HEADS,
        head_width=WIDTH,
        dtype=dtype,
        device=torch.device("cpu"),
    )


def prefilled(requests: int, tokens: int) -> DynamicCache:
    cache = DynamicCache()
    for layer in range(LAYERS):
        keys, values = torch.randn(2, requests, HEADS, tokens, WIDTH)
        cache.update(keys, values, layer)
    return cache


def seen(cache: SlotCache, layer: int, rows: int, span: int) -> tuple[torch.Tensor, torch.Tensor]:
    """What a step reads, after one that writes where nothing is looked at."""
    last = torch.tensor([cache.length * (cache.rows - 1) + cache.length - 1])
    blank = torch.zeros(1, HEADS, WIDTH, dtype=cache._blocks.dtype)
    return cache.write(layer, last, blank, blank, rows, span)


def test_a_row_takes_over_its_own_request_of_a_prefill_without_the_padding() -> None:
    cache, source = empty(), prefilled(2, 6)
    cache.fill(1, source, 1, 4)
    for layer in range(LAYERS):
        keys, values = seen(cache, layer, 2, 6)
        assert torch.equal(keys[1, :, :4], source.layers[layer].keys[1, :, :4])
        assert torch.equal(values[1, :, :4], source.layers[layer].values[1, :, :4])
        assert not keys[1, :, 4:].any()
        assert not keys[0].any()


def test_a_step_adds_one_position_to_each_row_at_its_own_place() -> None:
    cache = empty()
    keys, values = torch.randn(2, 2, HEADS, WIDTH)
    found_keys, found_values = cache.write(1, torch.tensor([3, LENGTH + 7]), keys, values, 2, 8)
    assert found_keys.shape == (2, HEADS, 8, WIDTH)
    assert torch.equal(found_keys[0, :, 3], keys[0])
    assert torch.equal(found_values[1, :, 7], values[1])
    assert int((found_keys != 0).any(-1).sum()) == 2 * HEADS


def test_a_row_that_moves_is_the_same_in_its_new_place() -> None:
    cache, source = empty(), prefilled(3, 5)
    for row in range(3):
        cache.fill(row, source, row, 5)
    cache.move(2, 0, 5)
    for layer in range(LAYERS):
        keys, _ = seen(cache, layer, 2, 5)
        assert torch.equal(keys[0], source.layers[layer].keys[2])
        assert torch.equal(keys[1], source.layers[layer].keys[1])


def test_what_is_planned_is_taken_at_once() -> None:
    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    before = resident()
    cache = SlotCache(
        layers=1,
        rows=8,
        length=4096,  # 128 MiB: so much is always fresh from the system
        heads=8,
        head_width=64,
        dtype=torch.float32,
        device=torch.device("cpu"),
    )
    assert resident() - before > 0.9 * cache._blocks.nbytes


def test_bfloat16_fits_too() -> None:
    assert empty(torch.bfloat16)._blocks.dtype == torch.bfloat16
