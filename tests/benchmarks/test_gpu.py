"""The GPU's comparison runs to its end on a tiny model on the CPU; its figures are tested as arithmetic."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from benchmarks.case import random_case
from benchmarks.gpu import Roof, gpu, prefill_operations, step_bytes, with_videos
from benchmarks.plan import QUICK
from benchmarks.subject import Subject
from tests.benchmarks.shapes import TINY

SHAPE = replace(TINY, patch_size=4, vocabulary=300)


def test_it_compares_and_tells_shares_of_the_device(subject: Subject) -> None:
    plan = replace(QUICK, batch_rounds=1, exchange_rounds=1)
    roof = Roof(bandwidth=1e9, matrix_rate=1e9)
    found = gpu(subject, plan, [SHAPE], device="cpu", batches=(1, 2), roof=roof)
    assert {row.model for row in found.rows} == {"tiny, bf16"}
    titles = [part.title for part in found.breakdowns]
    assert {"the device at most", "tiny, bf16: 1 in flight", "tiny, bf16: 2 in flight"} <= set(titles)


def test_a_step_reads_weights_cache_and_the_experts_in_use(subject: Subject) -> None:
    case = random_case(subject, QUICK, SHAPE, torch.bfloat16)
    one, two = with_videos(case, 1), with_videos(case, 2)
    layer = 2 * (2 * 2 * 8)  # keys and values of 2 heads of width 8, two bytes each
    per_video = 10 * 2 * layer
    experts = sum(
        part.A.numel() + part.B.numel()
        for name, part in next(iter(case.adapters.values())).layers.items()
        if "language_model" in name
    )
    assert step_bytes(two, 10) - step_bytes(one, 10) == per_video + 2 * experts
    assert step_bytes(one, 11) - step_bytes(one, 10) == 2 * layer


def test_a_prefill_multiplies_every_weight_with_every_token(subject: Subject) -> None:
    case = random_case(subject, QUICK, SHAPE, torch.bfloat16)
    assert prefill_operations(with_videos(case, 2)) == 2 * prefill_operations(with_videos(case, 1))


def test_the_roof_is_measured() -> None:
    roof = Roof.measured("cpu", copy_bytes=2**20, size=32)
    assert roof.bandwidth > 0
    assert roof.matrix_rate > 0


@pytest.mark.parametrize("count", [1, 8, 32])
def test_videos_take_the_domains_in_turns(subject: Subject, count: int) -> None:
    case = with_videos(random_case(subject, QUICK, SHAPE, torch.bfloat16), count)
    assert len(case.clips) == count
    assert len({clip.domain for clip in case.clips}) == min(count, 8)
