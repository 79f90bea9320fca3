"""The engine against stock `generate`: a hundred random schedules, every greedy answer token for token; a sampled one
against the engine that has nothing else to do (how it is drawn: `test_engine.py`)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

import pytest
import torch

from contract.errors import Code
from milora import AdapterBank, MiloraModel, inject
from model_store.backbone import Backbone
from tests.workers.adapters import load
from tests.workers.lively_backbone import STOP_IDS, mixed_states, write_lively_backbone
from tests.workers.requests import prompt_of, turn
from tests.workers.schedules import (
    LONGEST,
    SLOTS,
    VIDEOS,
    Arrival,
    FewSlots,
    Run,
    failure_code,
    play,
    random_schedule,
    submit,
    was_stopped,
)
from tests.workers.stock_reference import Gates, StockAnswer, StockReference, Tokens
from workers.engine import Engine, EngineLimits
from workers.expert_room import room_for
from workers.prompt import Prompt
from workers.request import EngineAnswer, EngineRequest

SCHEDULES, FEW_SLOTS = 100, 2
CLEAR = 5e-3
"""Least distance of the two largest logits: some hundred times what the order of a float32 sum changes."""

Expected = Callable[[int, int], StockAnswer]
Alone = Callable[[int, int, int], Tokens]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_lively_backbone(tmp_path_factory.mktemp("lively") / "tiny")


@pytest.fixture(scope="module")
def backbone(folder: Path) -> Backbone:
    backbone = load(folder)
    backbone.model.generation_config.eos_token_id = STOP_IDS
    return backbone


@pytest.fixture(scope="module")
def prompts(backbone: Backbone) -> dict[int, Prompt]:
    """Videos of several sizes with words of several lengths."""
    return {video: prompt_of(backbone, video, "tell me " * (video % 3) or None) for video in VIDEOS}


@pytest.fixture(scope="module")
def expected(folder: Path, backbone: Backbone, prompts: dict[int, Prompt]) -> Expected:
    """(video, slot) → what stock `generate` answers to it alone."""
    reference = StockReference(folder, mixed_states(backbone), STOP_IDS, LONGEST)
    return cache(lambda video, slot: reference.answer(prompts[video], slot))


@pytest.fixture(scope="module")
def experts(backbone: Backbone) -> Iterator[MiloraModel]:
    """Every slot but 0 with its adapter resident."""
    states = mixed_states(backbone)
    handle = inject(backbone.model, room_for([], experts=4, rank=3), slots=len(states))
    bank = AdapterBank(handle)
    for slot, state in states.items():
        assert bank.acquire(slot, lambda state=state: state) == slot
    yield handle
    handle.remove()


@pytest.fixture(scope="module")
def crowded(folder: Path) -> Backbone:
    """The same backbone once more, for experts in few slots."""
    backbone = load(folder)
    backbone.model.generation_config.eos_token_id = STOP_IDS
    return backbone


@pytest.fixture(scope="module")
def few(crowded: Backbone) -> FewSlots:
    """Two slots for the four adapters, each of another number of experts, rank and group."""
    states = mixed_states(crowded)
    bank = AdapterBank(inject(crowded.model, room_for([], experts=4, rank=3), slots=FEW_SLOTS))
    return FewSlots(bank, states)


@pytest.fixture(scope="module")
def alone(backbone: Backbone, experts: MiloraModel, prompts: dict[int, Prompt]) -> Alone:
    """(video, slot, seed) → the sampled answer of an engine that has nothing else to do."""

    def run(video: int, slot: int, seed: int) -> Tokens:
        engine, ids = Engine(backbone, experts, EngineLimits(max_batch=1)), []
        (row,) = engine._line.submit(
            [
                EngineRequest(
                    prompts[video], LONGEST, slot, seed, on_token=lambda *_: ids.append(row.generated[-1])
                )
            ]
        )
        turn(engine, [row.future])  # to an empty answer, too
        stopped = ids[-1] in STOP_IDS
        return Tokens(tuple(ids[:-1] if stopped else ids), stopped)

    return cache(run)


@pytest.mark.parametrize("number", range(SCHEDULES))
def test_every_answer_of_a_random_schedule_is_the_one_that_is_given_alone(
    backbone: Backbone,
    experts: MiloraModel,
    prompts: dict[int, Prompt],
    expected: Expected,
    alone: Alone,
    number: int,
) -> None:
    schedule = random_schedule(number)
    for run in play(Engine(backbone, experts, schedule.limits), schedule, prompts):
        if run.stop.is_set():
            assert was_stopped(run), run
        else:
            _check(run, backbone, expected, alone)


@pytest.mark.parametrize("number", range(0, SCHEDULES, 4))
@pytest.mark.parametrize("small", [True, False], ids=["side by side", "in turns"])
def test_the_same_holds_on_the_engines_own_threads(
    backbone: Backbone,
    experts: MiloraModel,
    prompts: dict[int, Prompt],
    expected: Expected,
    alone: Alone,
    number: int,
    small: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("workers.engine._SMALL_MODEL", 10**9 if small else 0)
    schedule = random_schedule(number)
    engine = Engine(backbone, experts, schedule.limits)
    engine.start()
    try:
        runs = [submit(engine, arrival, prompts) for arrival in schedule.arrivals]
        for run in runs:
            if run.arrival.canceled_after is not None:
                run.stop.set()
        for run in runs:
            run.future.exception(timeout=120)
    finally:
        engine.close()
    for run in runs:
        if not (run.stop.is_set() and was_stopped(run)):  # it may have been faster than its cancellation
            _check(run, backbone, expected, alone)


@pytest.mark.parametrize("number", range(0, SCHEDULES, 2))
def test_the_same_holds_while_adapters_are_exchanged_between_the_steps(
    few: FewSlots,
    crowded: Backbone,
    prompts: dict[int, Prompt],
    expected: Expected,
    alone: Alone,
    number: int,
) -> None:
    schedule, before = random_schedule(number), few.bank.stats.evictions
    engine = Engine(crowded, few.bank._handle, schedule.limits)
    for run in play(engine, schedule, prompts, few):
        if run.stop.is_set():
            assert was_stopped(run), run
        else:
            _check(run, crowded, expected, alone)
    adapters = {arrival.slot for arrival in schedule.arrivals} - {0}
    assert few.bank.stats.evictions - before >= len(adapters) - FEW_SLOTS
    assert few.bank.stats.pinned == 0


@pytest.mark.parametrize("number", range(0, SCHEDULES, 10))
@pytest.mark.parametrize("small", [True, False], ids=["side by side", "in turns"])
def test_the_same_holds_while_adapters_are_exchanged_beside_the_steps(
    few: FewSlots,
    crowded: Backbone,
    prompts: dict[int, Prompt],
    expected: Expected,
    alone: Alone,
    number: int,
    small: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("workers.engine._SMALL_MODEL", 10**9 if small else 0)
    schedule = random_schedule(number)
    engine = Engine(crowded, few.bank._handle, schedule.limits)

    def job(arrival: Arrival) -> Run:
        """As the worker does it: stand in line for a slot, keep it until the answer is there."""
        slot = few.acquire(arrival.slot, waiting=lambda: None)
        try:
            run = submit(engine, arrival, prompts, slot)
            run.future.exception(timeout=120)
            return run
        finally:
            few.bank.release(arrival.slot or None)

    engine.start()
    try:
        with ThreadPoolExecutor(len(schedule.arrivals)) as jobs:
            runs = list(jobs.map(job, schedule.arrivals))
    finally:
        engine.close()
    for run in runs:
        _check(run, crowded, expected, alone)


def _check(run: Run, backbone: Backbone, expected: Expected, alone: Alone) -> None:
    """A request that was not stopped has the answer that it gets alone, and told of every token of it."""
    video, slot, seed = run.arrival.video, run.arrival.slot, run.arrival.seed
    full = expected(video, slot).tokens if seed is None else alone(video, slot, seed)
    ids, reason = full.cut(run.arrival.max_new_tokens)
    assert run.tokens == list(range(1, len(ids) + (reason == "stop") + 1)), run
    if not backbone.processor.tokenizer.decode(ids, skip_special_tokens=True).strip():
        assert failure_code(run) is Code.MODEL_EMPTY_ANSWER
        return
    answer = run.future.result()
    assert (answer.token_ids, answer.finish_reason, answer.completion_tokens) == (
        ids,
        reason,
        len(run.tokens),
    )
    _check_gates(answer, expected(video, slot).gates)


def _check_gates(answer: EngineAnswer, gates: Gates) -> None:
    found = {} if answer.gates is None else answer.gates.by_layer()
    assert found.keys() == gates.keys()
    for name, gate in gates.items():
        torch.testing.assert_close(
            found[name], gate, rtol=0, atol=1e-4, msg=lambda text, name=name: f"{name}: {text}"
        )


def test_the_references_are_clear_and_differ_by_video_and_by_adapter(expected: Expected) -> None:
    found = {(video, slot): expected(video, slot) for video in VIDEOS for slot in range(SLOTS)}
    unclear = {key: answer.gap for key, answer in found.items() if answer.gap < CLEAR}
    assert not unclear, "choose other videos: rounding may turn these"
    longer = [answer.tokens.ids for answer in found.values() if len(answer.tokens.ids) > 5]
    assert len(set(longer)) == len(longer) > len(found) / 2
    stopped = sum(answer.tokens.stopped for answer in found.values())
    assert SLOTS <= stopped <= len(found) / 2


def test_the_schedules_hold_every_adapter_every_width_and_early_and_late_cancels() -> None:
    schedules = [random_schedule(number) for number in range(SCHEDULES)]
    arrivals = [arrival for schedule in schedules for arrival in schedule.arrivals]
    assert {schedule.limits.max_batch for schedule in schedules} == set(range(1, 9))
    assert {arrival.slot for arrival in arrivals} == set(range(SLOTS))
    assert {arrival.max_new_tokens for arrival in arrivals} == set(range(1, LONGEST + 1))
    assert {arrival.canceled_after for arrival in arrivals} == {None, *range(15)}
