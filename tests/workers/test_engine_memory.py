"""Memory that runs out: fewer requests at once, the same answers."""

from __future__ import annotations

import weakref

import pytest
import torch

from contract.errors import Code, JobFailure
from model_store.backbone import Backbone
from tests.workers.requests import answers, engine_of, prompt_of, request_of, turn
from workers.engine import EngineLimits
from workers.prefill import Look, Prefill
from workers.sampling import Chooser
from workers.token_step import TokenStep, _adjacent

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


def test_memory_of_the_cpu_that_runs_out_splits_the_batch_too(
    backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, sizes = Prefill.__call__, []

    def bounded(self: Prefill, looks: list[Look]):
        sizes.append(len(looks))
        if len(looks) > 2:
            torch.empty(1 << 60, dtype=torch.uint8)  # the error that the allocator itself raises
        return whole(self, looks)

    monkeypatch.setattr(Prefill, "__call__", bounded)
    requests = [request_of(backbone, seed) for seed in range(5)]
    assert len(answers(engine_of(backbone), requests)) == 5
    assert sizes[0] == 5
    assert min(sizes) <= 2


def test_a_group_that_has_to_wait_keeps_its_order(
    backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = engine_of(backbone, max_batch=8)
    first = engine.submit(request_of(backbone, 0, max_new_tokens=40))
    engine.step()
    whole, short = Prefill.__call__, [True]

    def bounded(self: Prefill, looks: list[Look]):
        if short[0]:
            raise torch.OutOfMemoryError
        return whole(self, looks)

    monkeypatch.setattr(Prefill, "__call__", bounded)
    order: list[int] = []
    futures = engine.submit_all(
        [
            request_of(
                backbone, seed, on_token=lambda done, _, seed=seed: order.append(seed) if done == 1 else None
            )
            for seed in range(1, 5)
        ]
    )
    engine.step()
    short[0] = False
    turn(engine, [first, *futures])
    assert order == [1, 2, 3, 4]
    assert all(future.exception() is None for future in futures)


def test_a_row_whose_memory_a_prefill_took_starts_again(
    backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = [answers(engine_of(backbone), [request_of(backbone, seed)])[0].token_ids for seed in (0, 1)]
    engine = engine_of(backbone)
    first = engine.submit(request_of(backbone, 0))
    engine.step()
    second = engine.submit(request_of(backbone, 1))
    engine.prefill()  # ready, and not yet in a row
    engine._rows.shed()
    turn(engine, [first, second])
    assert [first.result().token_ids, second.result().token_ids] == expected


def test_videos_that_are_too_much_together_are_looked_at_one_by_one(
    backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = Prefill.see

    def bounded(self: Prefill, looks: list[Look]):
        if len(looks) > 1:
            raise torch.OutOfMemoryError
        if looks[0].key == "broken":
            raise ValueError("a broken video")
        return whole(self, looks)

    monkeypatch.setattr(Prefill, "see", bounded)
    engine = engine_of(backbone)
    keys = ["a", "broken", "b"]
    futures = [engine.look(Look(prompt_of(backbone, seed), key=key)) for seed, key in enumerate(keys)]
    engine.step()
    assert [type(future.exception(timeout=0)) for future in futures] == [type(None), ValueError, type(None)]


def test_the_cache_is_planned_last_and_leaves_what_others_will_take(
    backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoken_for = []

    def budget(device: torch.device, later: int) -> int:
        for layer in backbone.model.model.language_model.layers:
            attention, mlp = layer.self_attn, layer.mlp
            assert _adjacent([attention.q_proj.weight, attention.k_proj.weight, attention.v_proj.weight])
            assert _adjacent([mlp.gate_proj.weight, mlp.up_proj.weight])
        spoken_for.append(later)
        return 1 << 30

    monkeypatch.setattr("workers.engine.cache_budget", budget)
    engine_of(backbone, vision_cache_bytes=0)
    engine_of(backbone, vision_cache_bytes=100, host_bytes=1000)
    engine_of(backbone, vision_cache_bytes=0, prefill_tokens=2 * EngineLimits.prefill_tokens)
    assert spoken_for == [spoken_for[0], spoken_for[0] + 1100, 2 * spoken_for[0]]


@pytest.mark.parametrize("name", ["prefill", "decode step", "look"])
def test_the_memory_of_a_failed_pass_is_free_when_less_is_tried(
    backbone: Backbone, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    kind, method = (Prefill, "see") if name == "look" else (PASSES[name], "__call__")
    whole, failed, held = getattr(kind, method), [], []

    def bounded(self: Prefill | TokenStep, batch, *rest):
        held.extend(tensor() for tensor in failed if tensor() is not None)
        if len(batch) > 1:
            activations = torch.empty(1000)
            failed.append(weakref.ref(activations))
            raise torch.OutOfMemoryError
        return whole(self, batch, *rest)

    monkeypatch.setattr(kind, method, bounded)
    engine = engine_of(backbone)
    if name == "look":
        futures = [engine.look(Look(prompt_of(backbone, seed))) for seed in range(4)]
    else:
        futures = engine.submit_all([request_of(backbone, seed) for seed in range(4)])
    turn(engine, futures)
    assert failed
    assert not held
    assert all(future.exception() is None for future in futures)


@pytest.mark.parametrize("most", [1, 3])
def test_memory_that_is_short_when_tokens_are_chosen_costs_nobody_the_answer(
    backbone: Backbone, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    requests = [request_of(backbone, seed, seed=seed if seed % 2 else None) for seed in range(5)]
    expected = [answer.token_ids for answer in answers(engine_of(backbone), requests)]
    whole = Chooser.choose

    def bounded(self: Chooser, sequences, *rest):
        if len(sequences) > most:
            raise torch.OutOfMemoryError
        return whole(self, sequences, *rest)

    monkeypatch.setattr(Chooser, "choose", bounded)
    assert [answer.token_ids for answer in answers(engine_of(backbone), requests)] == expected


def test_a_request_that_cannot_join_even_alone_is_a_failure_of_its_own(
    backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    def short(*_):
        raise torch.OutOfMemoryError

    monkeypatch.setattr(Chooser, "choose", short)
    engine = engine_of(backbone)
    futures = engine.submit_all([request_of(backbone, seed) for seed in range(2)])
    turn(engine, futures)
    assert {future.exception().code for future in futures} == {Code.MODEL_OUT_OF_MEMORY}


def test_room_comes_back_while_others_keep_coming(
    backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, short = TokenStep.__call__, [True]

    def bounded(self: TokenStep, ids, *rest):
        if len(ids) == 4 and short[0]:
            short[0] = False
            raise torch.OutOfMemoryError
        return whole(self, ids, *rest)

    monkeypatch.setattr(TokenStep, "__call__", bounded)
    engine = engine_of(backbone, max_batch=4)
    engine.submit(request_of(backbone, 0, max_new_tokens=3000))  # the engine is never empty
    request, rooms = request_of(backbone, 1, max_new_tokens=2), []
    while engine.room < 4 or short[0]:
        engine.submit_all([request] * 4)
        engine.step()
        rooms.append(engine.room)
        assert len(rooms) < 100
    assert list(dict.fromkeys(rooms))[-3:] == [2, 3, 4]
    assert engine.in_flight > 0
