"""Memory that runs out: fewer requests at once, the same answers."""

from __future__ import annotations

import pytest
import torch

from contract.errors import Code, JobFailure
from model_store.backbone import Backbone
from tests.workers.requests import answers, engine_of, request_of, turn
from workers.prefill import Prefill
from workers.token_step import TokenStep

PASSES = {"prefill": Prefill, "decode step": TokenStep}


def _short_of_memory(monkeypatch: pytest.MonkeyPatch, name: str, most: int) -> list[int]:
    """Let a pass over more than `most` requests run out of memory; returns the sizes tried."""
    kind, sizes = PASSES[name], []
    whole = kind.__call__

    def bounded(self: Prefill | TokenStep, batch, *rest):
        sizes.append(len(batch))
        if len(batch) > most:
            if name == "decode step":  # some layers have taken in the new token already
                self.cache._blocks[0, :, :, rest[0].max() :] = 7.0
            raise torch.OutOfMemoryError
        return whole(self, batch, *rest)

    monkeypatch.setattr(kind, "__call__", bounded)
    return sizes


@pytest.mark.parametrize("pass_name", PASSES)
def test_less_is_done_at_once_and_the_answers_are_the_same(
    backbone: Backbone, monkeypatch: pytest.MonkeyPatch, pass_name: str
) -> None:
    requests = [request_of(backbone, seed, seed=seed if seed % 2 else None) for seed in range(6)]
    expected = [answer.token_ids for answer in answers(engine_of(backbone), requests)]
    sizes = _short_of_memory(monkeypatch, pass_name, 2)
    found = [answer.token_ids for answer in answers(engine_of(backbone), requests)]
    assert found == expected
    assert max(sizes) == 6


@pytest.mark.parametrize("pass_name", PASSES)
def test_a_video_too_large_even_alone_is_a_failure_of_its_own(
    backbone: Backbone, monkeypatch: pytest.MonkeyPatch, pass_name: str
) -> None:
    _short_of_memory(monkeypatch, pass_name, 0)
    engine = engine_of(backbone)
    future = engine.submit(request_of(backbone, 0))
    turn(engine, [future])
    failure = future.exception()
    assert isinstance(failure, JobFailure)
    assert failure.code is Code.MODEL_OUT_OF_MEMORY


def test_a_prefill_holds_no_more_tokens_than_it_may(
    backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = _short_of_memory(monkeypatch, "prefill", 99)
    requests = [request_of(backbone, seed) for seed in range(5)]
    longest = max(request.prompt.tokens for request in requests)
    answers(engine_of(backbone, prefill_tokens=2 * longest), requests)
    assert len(sizes) >= 3
    assert max(sizes) == 2
