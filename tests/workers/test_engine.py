"""Generation: the same answers as stock `generate`, whoever else is in flight."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
import torch

from contract.errors import Code, JobFailure
from milora import MiloraModel
from milora.layers import MiloraLayer
from model_store.backbone import Backbone, weights_sha256
from tests.workers.requests import (
    NEW_TOKENS,
    answers,
    engine_of,
    experts_of,
    prompt_of,
    request_of,
    turn,
)
from workers.engine import Engine, EngineLimits
from workers.prefill import Look, Prefill
from workers.prompt import Prompt
from workers.request import EngineBroken, EngineClosed, RequestStopped
from workers.token_step import TokenStep

FOUR = 4


@pytest.fixture(scope="module")
def experts(backbone: Backbone) -> Iterator[MiloraModel]:
    """Four random adapters in four slots."""
    handle = experts_of(backbone, FOUR)
    yield handle
    handle.remove()


def _stock(backbone: Backbone, prompt: Prompt, **options: object) -> list[int]:
    out = backbone.model.generate(
        input_ids=prompt.input_ids[None],
        attention_mask=torch.ones_like(prompt.input_ids)[None],
        pixel_values_videos=prompt.pixel_values,
        video_grid_thw=prompt.grid_thw,
        video_merge_sizes=prompt.merge_sizes,
        video_compression_mask=prompt.compression_mask,
        **{"max_new_tokens": NEW_TOKENS, "do_sample": False, **options},
    )
    ids = out[0, prompt.tokens :].tolist()
    return [token for token in ids if token != backbone.model.generation_config.eos_token_id]


def test_greedy_answers_are_those_of_stock_generate(backbone: Backbone) -> None:
    found = answers(engine_of(backbone), [request_of(backbone, seed) for seed in range(6)])
    expected = [_stock(backbone, prompt_of(backbone, seed)) for seed in range(6)]
    assert [list(answer.token_ids) for answer in found] == expected


def test_a_repetition_penalty_of_the_checkpoint_is_kept(
    backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = _stock(backbone, prompt_of(backbone, 0))
    monkeypatch.setattr(backbone.model.generation_config, "repetition_penalty", 1.8)
    lengths = [12, 24, 24, 48]  # the last one moves into the first one's row, with all that it has seen
    expected = [
        _stock(backbone, prompt_of(backbone, seed), max_new_tokens=tokens)
        for seed, tokens in enumerate(lengths)
    ]
    requests = [request_of(backbone, seed, max_new_tokens=tokens) for seed, tokens in enumerate(lengths)]
    assert [list(answer.token_ids) for answer in answers(engine_of(backbone), requests)] == expected
    assert expected[0] != plain


def test_a_sampled_answer_is_drawn_token_by_token_from_the_stock_models_logits(backbone: Backbone) -> None:
    found = answers(engine_of(backbone), [request_of(backbone, 0, seed=7)])[0].token_ids
    prompt = prompt_of(backbone, 0)
    draws = torch.rand(NEW_TOKENS, generator=torch.Generator().manual_seed(7), dtype=torch.double)
    told: list[int] = []
    with torch.no_grad():
        for draw in draws[: len(found)]:
            ids = torch.cat([prompt.input_ids, torch.tensor(told, dtype=torch.long)])
            logits = backbone.model(
                input_ids=ids[None],
                pixel_values_videos=prompt.pixel_values,
                video_grid_thw=prompt.grid_thw,
                video_merge_sizes=prompt.merge_sizes,
                video_compression_mask=prompt.compression_mask,
            ).logits[0, -1]
            values, likeliest = logits.double().sort(descending=True, stable=True)
            reached = values[:50].softmax(0).cumsum(0)
            told.append(int(likeliest[int((reached <= draw * reached[-1]).sum())]))
    assert told == list(found)


def test_eight_videos_over_four_domains_get_the_tokens_they_get_alone(
    backbone: Backbone, experts: MiloraModel
) -> None:
    requests = [request_of(backbone, seed, slot=1 + seed % FOUR) for seed in range(8)]
    alone = [answers(engine_of(backbone, experts), [request])[0] for request in requests]
    together = answers(engine_of(backbone, experts, max_batch=8), requests)
    assert [answer.token_ids for answer in together] == [answer.token_ids for answer in alone]
    assert len({answer.token_ids for answer in alone}) > FOUR
    for one, other in zip(alone, together, strict=True):
        assert one.gates is not None
        assert other.gates is not None
        torch.testing.assert_close(one.gates.gates, other.gates.gates, rtol=0, atol=1e-5)


def test_requests_that_join_and_leave_between_steps_do_not_change_each_other(
    backbone: Backbone, experts: MiloraModel
) -> None:
    lengths = [20, 5, 11, 3, 16, 8]
    requests = [
        request_of(backbone, seed, slot=seed % (FOUR + 1), max_new_tokens=length)
        for seed, length in enumerate(lengths)
    ]
    alone = [answers(engine_of(backbone, experts), [request])[0].token_ids for request in requests]
    engine = engine_of(backbone, experts, max_batch=3)
    futures = []
    for request in requests:
        futures.append(engine.submit(request))
        engine.step()
        engine.step()
    turn(engine, futures)
    assert [future.result().token_ids for future in futures] == alone


def test_an_adapter_changes_the_answer_and_none_means_the_frozen_backbone(
    backbone: Backbone, experts: MiloraModel
) -> None:
    prompt = prompt_of(backbone, 3)
    plain, adapted = answers(
        engine_of(backbone, experts),
        [request_of(backbone, 3, prompt=prompt, slot=slot) for slot in (0, 1)],
    )
    assert list(plain.token_ids) == _stock(backbone, prompt) != list(adapted.token_ids)
    assert plain.gates is None
    assert adapted.gates is not None


def test_gates_are_computed_once_and_kept_for_the_whole_answer(
    backbone: Backbone, experts: MiloraModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    computed: list[str] = []
    whole = MiloraLayer._gates

    def count(self: MiloraLayer, *rest: object) -> torch.Tensor:
        computed.append(self.name)
        return whole(self, *rest)

    monkeypatch.setattr(MiloraLayer, "_gates", count)
    answers(engine_of(backbone, experts), [request_of(backbone, 1, slot=2)])
    assert sorted(computed) == sorted(layer.name for layer in experts.layers)


def test_a_reported_gate_is_the_softmax_of_what_its_layer_read(
    backbone: Backbone, experts: MiloraModel
) -> None:
    layer = next(layer for layer in experts.layers if layer.name.endswith("layers.1.self_attn.q_proj"))
    inputs: list[torch.Tensor] = []
    module = backbone.model.get_submodule(layer.name)
    hook = module.register_forward_pre_hook(lambda _, args: inputs.append(args[0]))
    try:
        answer = answers(engine_of(backbone, experts), [request_of(backbone, 5, slot=3)])[0]
    finally:
        hook.remove()
    z = inputs[0][0].mean(0)  # the first pass is the prefill: (T, in) of one prompt
    G, b = layer.G.view(layer.slots, layer.experts, -1)[2], layer.b[2]
    expected = torch.softmax(G @ z + b, -1)
    assert answer.gates is not None
    torch.testing.assert_close(answer.gates.by_layer()[layer.name], expected, rtol=0, atol=1e-4)


def test_a_stopped_request_leaves_before_the_next_step(backbone: Backbone) -> None:
    stop = threading.Event()
    engine = engine_of(backbone)
    stopped = engine.submit(request_of(backbone, 0, stop=stop, max_new_tokens=50))
    other = engine.submit(request_of(backbone, 1))
    for _ in range(3):
        engine.step()
    stop.set()
    engine.step()
    with pytest.raises(RequestStopped):
        stopped.result(timeout=0)
    turn(engine, [other])
    assert list(other.result().token_ids) == _stock(backbone, prompt_of(backbone, 1))


def test_a_request_stopped_while_it_waits_is_never_prefilled(backbone: Backbone) -> None:
    stop = threading.Event()
    engine = engine_of(backbone, max_batch=1)
    first = engine.submit(request_of(backbone, 0))
    engine.step()
    waiting = engine.submit(request_of(backbone, 1, stop=stop))
    stop.set()
    engine.step()
    assert isinstance(waiting.exception(timeout=0), RequestStopped)
    turn(engine, [first])


def test_a_seed_gives_the_same_answer_alone_and_in_a_batch(backbone: Backbone) -> None:
    request = request_of(backbone, 2, seed=11)
    alone = answers(engine_of(backbone), [request])[0]
    crowd = [request_of(backbone, seed, seed=seed) for seed in range(3)]
    again = answers(engine_of(backbone), [*crowd, request])[-1]
    assert again.token_ids == alone.token_ids


def test_progress_counts_prompt_and_tokens(backbone: Backbone) -> None:
    prefills: list[tuple[int, int]] = []
    tokens: list[tuple[int, int]] = []
    request = request_of(
        backbone,
        0,
        on_prefill=lambda done, total: prefills.append((done, total)),
        on_token=lambda done, total: tokens.append((done, total)),
    )
    answer = answers(engine_of(backbone), [request])[0]
    assert prefills == [(0, request.prompt.tokens), (request.prompt.tokens, request.prompt.tokens)]
    assert tokens == [(i, NEW_TOKENS) for i in range(1, answer.completion_tokens + 1)]


def test_an_answer_of_nothing_is_a_failure(backbone: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    first = _stock(backbone, prompt_of(backbone, 0))[0]
    monkeypatch.setattr(backbone.model.generation_config, "eos_token_id", [first])
    future = engine_of(backbone).submit(request_of(backbone, 0))
    engine = engine_of(backbone)
    future = engine.submit(request_of(backbone, 0))
    turn(engine, [future])
    failure = future.exception()
    assert isinstance(failure, JobFailure)
    assert failure.code is Code.MODEL_EMPTY_ANSWER


def test_a_prompt_longer_than_a_row_is_a_failure(backbone: Backbone) -> None:
    engine = engine_of(backbone, row_tokens=50)
    future = engine.submit(request_of(backbone, 0))
    turn(engine, [future])
    failure = future.exception()
    assert isinstance(failure, JobFailure)
    assert failure.code is Code.VIDEO_TOO_LONG


def test_a_bug_in_a_step_costs_the_requests_in_flight_and_not_the_engine(
    backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = engine_of(backbone)
    engine.start()
    with monkeypatch.context() as patch:
        patch.setattr("workers.token_step.TokenStep.__call__", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            engine.submit(request_of(backbone, 0)).result(timeout=60)
    answer = engine.submit(request_of(backbone, 0)).result(timeout=60)
    assert list(answer.token_ids) == _stock(backbone, prompt_of(backbone, 0))
    engine.close()


def test_when_nothing_gets_through_the_engine_gives_up_and_says_so(
    backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = threading.Event()
    engine = engine_of(backbone)
    engine.start(on_broken=broken.set)
    monkeypatch.setattr("workers.token_step.TokenStep.__call__", lambda *_: 1 / 0)
    told = [engine.submit(request_of(backbone, 0)).exception(timeout=60) for _ in range(3)]
    assert [type(failure) for failure in told] == [ZeroDivisionError, ZeroDivisionError, EngineBroken]
    assert broken.wait(timeout=60)
    assert engine.broken
    with pytest.raises(EngineClosed):
        engine.submit(request_of(backbone, 0))
    engine.close()


def test_a_device_that_fails_in_a_step_ends_those_who_wait_too(
    backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    failure = torch.AcceleratorError("CUDA error: an illegal memory access was encountered")
    monkeypatch.setattr("workers.token_step.TokenStep.__call__", lambda *_: _raise(failure))
    engine = engine_of(backbone, max_batch=1)
    in_the_pass, waiting = engine.submit_all([request_of(backbone, seed) for seed in range(2)])
    engine.start()
    assert isinstance(in_the_pass.exception(timeout=60), EngineBroken)
    assert isinstance(waiting.exception(timeout=60), EngineClosed)
    engine.close()


def _raise(failure: Exception) -> None:
    raise failure


def _spoil(monkeypatch: pytest.MonkeyPatch, row: int) -> None:
    """The second step gives one row no numbers."""
    whole, steps = TokenStep.__call__, []

    def spoiled(self: TokenStep, *step):
        logits = whole(self, *step)
        steps.append(logits)
        if len(steps) == 2:
            logits[row] = torch.nan
        return logits

    monkeypatch.setattr(TokenStep, "__call__", spoiled)


@pytest.mark.parametrize("seed", [None, 5], ids=["greedy", "sampled"])
def test_a_row_without_finite_logits_fails_alone(
    backbone: Backbone, monkeypatch: pytest.MonkeyPatch, seed: int | None
) -> None:
    expected = [_stock(backbone, prompt_of(backbone, video)) for video in range(1, 4)]
    _spoil(monkeypatch, 0)
    engine = engine_of(backbone)
    unlucky, *others = engine.submit_all(
        [request_of(backbone, video, seed=None if video else seed) for video in range(4)]
    )
    turn(engine, [unlucky, *others])
    assert isinstance(unlucky.exception(), FloatingPointError)
    assert [list(future.result().token_ids) for future in others] == expected


def test_a_request_that_cannot_be_told_how_far_it_is_fails_alone(backbone: Backbone) -> None:
    engine = engine_of(backbone)
    deaf, other = engine.submit_all(
        [request_of(backbone, 0, on_token=lambda *_: 1 / 0), request_of(backbone, 1)]
    )
    turn(engine, [deaf, other])
    assert isinstance(deaf.exception(), ZeroDivisionError)
    assert list(other.result().token_ids) == _stock(backbone, prompt_of(backbone, 1))


def test_a_future_that_its_caller_lets_go_of_changes_nothing(backbone: Backbone) -> None:
    engine = engine_of(backbone)
    left, other = engine.submit_all([request_of(backbone, seed) for seed in range(2)])
    assert not left.cancel()
    turn(engine, [left, other])
    assert list(other.result().token_ids) == _stock(backbone, prompt_of(backbone, 1))


def test_closing_fails_what_is_unanswered(backbone: Backbone) -> None:
    engine = engine_of(backbone)
    engine.start()
    future = engine.submit(request_of(backbone, 0, max_new_tokens=3000))
    engine.close()
    assert isinstance(future.exception(timeout=0), EngineClosed)
    with pytest.raises(EngineClosed):
        engine.submit(request_of(backbone, 0))


def test_the_backbones_bytes_stay_the_same(backbone: Backbone, experts: MiloraModel) -> None:
    before = weights_sha256(backbone.model)
    answers(engine_of(backbone, experts), [request_of(backbone, seed, slot=1 + seed) for seed in range(3)])
    assert weights_sha256(backbone.model) == before


def test_answers_go_on_while_a_prefill_takes_its_time(
    backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, entered, go = Prefill.__call__, threading.Event(), threading.Event()

    def slow(self: Prefill, looks: list[Look]):
        if looks[0].key == "slow":
            entered.set()
            assert go.wait(timeout=60)
        return whole(self, looks)

    monkeypatch.setattr(Prefill, "__call__", slow)
    engine = engine_of(backbone)
    began = threading.Event()
    first = engine.submit(
        request_of(backbone, 0, max_new_tokens=60, on_token=lambda done, _: began.set() if done > 1 else None)
    )
    engine.start()
    assert began.wait(timeout=60)
    second = engine.submit(request_of(backbone, 1, vision_key="slow"))
    assert entered.wait(timeout=60)
    assert first.result(timeout=60).completion_tokens > 1
    assert not second.done()
    go.set()
    assert list(second.result(timeout=60).token_ids) == _stock(backbone, prompt_of(backbone, 1))
    engine.close()


def test_a_prefill_in_progress_counts_as_rows(backbone: Backbone) -> None:
    engine = engine_of(backbone, max_batch=2)
    futures = engine.submit_all([request_of(backbone, seed) for seed in range(3)])
    engine.prefill()
    engine.prefill()
    assert engine.in_flight == 0
    engine.decode()
    assert engine.in_flight == 2
    turn(engine, futures)
    for seed, future in enumerate(futures):
        assert list(future.result().token_ids) == _stock(backbone, prompt_of(backbone, seed))


def test_a_prefill_that_fails_costs_its_own_requests(
    backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = engine_of(backbone)
    engine.start()
    with monkeypatch.context() as patch:
        patch.setattr(Prefill, "__call__", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            engine.submit(request_of(backbone, 0)).result(timeout=60)
    answer = engine.submit(request_of(backbone, 0)).result(timeout=60)
    assert list(answer.token_ids) == _stock(backbone, prompt_of(backbone, 0))
    engine.close()


def test_a_row_that_cannot_be_filled_costs_its_own_group(
    backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = engine_of(backbone)
    bystander = engine.submit(request_of(backbone, 1))
    engine.step()
    unlucky = engine.submit(request_of(backbone, 0))
    with monkeypatch.context() as patch:
        patch.setattr("workers.slot_cache.SlotCache.fill", lambda *_: 1 / 0)
        engine.step()
    assert isinstance(unlucky.exception(timeout=0), ZeroDivisionError)
    turn(engine, [bystander])
    assert list(bystander.result().token_ids) == _stock(backbone, prompt_of(backbone, 1))


def test_a_model_that_fills_the_cores_is_prefilled_and_decoded_in_turns(
    backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.engine._SMALL_MODEL", 0)
    threads: set[int] = set()
    engine = engine_of(backbone, max_batch=2)
    engine.start()
    requests = [
        request_of(
            backbone,
            seed,
            on_prefill=lambda *_: threads.add(threading.get_ident()),
            on_token=lambda *_: threads.add(threading.get_ident()),
        )
        for seed in range(4)
    ]
    found = [future.result(timeout=60) for future in engine.submit_all(requests)]
    assert [list(answer.token_ids) for answer in found] == [
        _stock(backbone, prompt_of(backbone, seed)) for seed in range(4)
    ]
    assert len(threads) == 1
    engine.close()


def test_the_tensor_threads_are_its_threads_alone(
    backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.engine._SMALL_MODEL", 0)
    counts: set[int] = set()
    engine = Engine(backbone, None, EngineLimits(max_batch=2), tensor_threads=3)
    engine.start()
    engine.submit(request_of(backbone, 0, on_token=lambda *_: counts.add(torch.get_num_threads()))).result(60)
    engine.close()
    assert counts == {3}
    assert torch.get_num_threads() == 1
    torch.set_num_threads(1)  # threads that are new take what was set last
