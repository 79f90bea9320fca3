"""The adapter bank: least recently used goes first, pinned stays, the base is never touched."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict, defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from torch import nn

from milora import (
    AdapterBank,
    AdapterState,
    BankFull,
    GroupConfig,
    LayerState,
    MiloraConfig,
    StateMismatch,
    inject,
)
from tests.milora.clips import CONFIG, batch_of, bytes_of, clip, random_state

GROUP = GroupConfig(("layer",), 2, 1, 2.0)
SLOTS = 3


def small_state(mark: float) -> AdapterState:
    """An adapter of one layer whose tensors all hold ``mark``."""
    A, B, G = torch.full((2, 4), mark), torch.full((4, 2), mark), torch.full((2, 4), mark)
    return AdapterState({"temporal": GROUP}, {"layer": LayerState(A, B, G, torch.full((2,), mark))})


def small_bank() -> AdapterBank:
    model = nn.ModuleDict({"layer": nn.Linear(4, 4)})
    return AdapterBank(inject(model, MiloraConfig(temporal=GROUP), slots=SLOTS))


class BankMachine(RuleBasedStateMachine):
    """Any sequence of acquire and release, against a model kept by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.bank = small_bank()
        self.order: OrderedDict[int, None] = OrderedDict()
        self.pins: dict[int, int] = defaultdict(int)
        self.slot_when_pinned: dict[int, int] = {}
        self.loads = self.evictions = self.hits = 0

    def _load(self, key: int) -> AdapterState:
        self.loads += 1
        return small_state(float(key))

    @rule(key=st.integers(1, 6))
    def acquire(self, key: int) -> None:
        idle = [other for other in self.order if not self.pins[other]]
        if key not in self.order and len(self.order) == SLOTS and not idle:
            with pytest.raises(BankFull):
                self.bank.acquire(key, lambda: self._load(key))
            return
        if key in self.order:
            self.hits += 1
        elif len(self.order) == SLOTS:
            del self.order[idle[0]]
            self.evictions += 1
        self.order[key] = None
        self.order.move_to_end(key)
        slot = self.bank.acquire(key, lambda: self._load(key))
        assert self.pins[key] == 0 or self.slot_when_pinned[key] == slot
        self.pins[key] += 1
        self.slot_when_pinned[key] = slot

    @precondition(lambda self: any(self.pins.values()))
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(sorted(key for key, pins in self.pins.items() if pins)))
        self.bank.release(key)
        self.pins[key] -= 1

    @invariant()
    def residents_are_the_most_recently_used(self) -> None:
        assert list(self.bank.resident()) == list(self.order)

    @invariant()
    def every_resident_has_a_slot_of_its_own_with_its_own_tensors(self) -> None:
        resident = self.bank.resident()
        assert len(set(resident.values())) == len(resident) <= SLOTS
        for key, slot in resident.items():
            assert torch.equal(
                self.bank._handle.export_state(slot).layers["layer"].A, torch.full((2, 4), key)
            )

    @invariant()
    def the_counters_add_up(self) -> None:
        stats = self.bank.stats
        assert (stats.hits, stats.misses, stats.evictions) == (self.hits, self.loads, self.evictions)
        assert stats.resident == len(self.order)
        assert stats.pinned == sum(pins > 0 for pins in self.pins.values())


BankMachine.TestCase.settings = settings(max_examples=25, stateful_step_count=25, deadline=None)
TestAnyOrderOfAcquireAndRelease = BankMachine.TestCase


def test_no_adapter_is_slot_zero_and_costs_nothing() -> None:
    bank = small_bank()
    with bank.pinned(None, lambda: pytest.fail("nothing to load")) as slot:
        assert slot == 0
    assert bank.stats.misses == bank.stats.resident == bank.stats.pinned == 0


def test_an_adapter_that_cannot_be_loaded_evicts_nobody() -> None:
    bank = small_bank()
    for key in (1, 2, 3):
        with bank.pinned(key, lambda key=key: small_state(key)):
            pass
    before = bank.resident()
    with pytest.raises(OSError, match="gone"):
        bank.acquire(4, lambda: (_ for _ in ()).throw(OSError("gone")))
    assert bank.resident() == before
    assert bank.stats.evictions == 0


def test_a_slot_that_could_not_be_filled_is_free_still(monkeypatch: pytest.MonkeyPatch) -> None:
    bank = small_bank()

    def run_out(*_: object) -> None:
        raise torch.OutOfMemoryError("the device is full")

    with monkeypatch.context() as patch:
        patch.setattr(bank._handle, "load_state", run_out)
        for key in range(2 * SLOTS):
            with pytest.raises(torch.OutOfMemoryError, match="the device is full"):
                bank.acquire(key, lambda: small_state(1.0))
    slots = {bank.acquire(key, lambda: small_state(1.0)) for key in range(SLOTS)}
    assert slots == set(range(1, SLOTS + 1))


@pytest.mark.parametrize(
    ("group", "A", "B", "message"),
    [
        (GROUP, (2, 5), (4, 2), r"A \(2, 5\), B \(4, 2\) do not fit; expected A \(2, 4\)"),
        (GROUP, (2, 4), (3, 2), r"expected A \(2, 4\), B \(4, 2\)"),
        (GroupConfig(("layer",), 4, 1, 2.0), (4, 4), (4, 4), r"4 experts of rank 1 exceed 2 experts"),
        (GroupConfig(("other",), 2, 1, 2.0), (2, 4), (4, 2), r"no adapted layers named \['other'\]"),
    ],
)
def test_an_adapter_that_does_not_fit_is_refused_and_evicts_nobody(
    group: GroupConfig, A: tuple[int, int], B: tuple[int, int], message: str
) -> None:
    bank = small_bank()
    with bank.pinned(1, lambda: small_state(1.0)):
        pass
    layer = LayerState(
        torch.zeros(A), torch.zeros(B), torch.zeros(group.experts, A[1]), torch.zeros(group.experts)
    )
    foreign = AdapterState({"temporal": group}, {group.targets[0]: layer})
    with pytest.raises(StateMismatch, match=message):
        bank.acquire("foreign", lambda: foreign)
    assert list(bank.resident()) == [1]


def test_an_adapter_of_the_other_group_is_refused() -> None:
    state = AdapterState({"spatial": GROUP}, small_state(1.0).layers)
    with pytest.raises(StateMismatch, match="layer is temporal here and spatial in the adapter"):
        small_bank().acquire(1, lambda: state)


def test_releasing_what_is_not_pinned_is_an_error() -> None:
    with pytest.raises(KeyError):
        small_bank().release("never acquired")


def test_a_new_generation_takes_another_slot_while_the_old_one_is_in_use() -> None:
    bank = small_bank()
    with bank.pinned(("traffic", 1), lambda: small_state(1.0)) as old:
        with bank.pinned(("traffic", 2), lambda: small_state(2.0)) as new:
            assert old != new
        assert torch.equal(bank._handle.export_state(old).layers["layer"].A, torch.full((2, 4), 1.0))


def test_a_thousand_swaps_leave_the_base_and_the_answers_as_they_were(model: nn.Module) -> None:
    handle = inject(model, CONFIG, slots=2)
    states = [random_state(handle, seed=seed) for seed in range(4)]
    batch = batch_of([clip(2, 5, seed=1)])
    bank, content = AdapterBank(handle), bytes_of(model)

    def logits(domain: int) -> torch.Tensor:
        with bank.pinned(domain, lambda: states[domain]) as slot:
            routing = handle.route([slot], **batch.routing)
            with torch.inference_mode(), handle.use(routing):
                return model(**batch.inputs).logits

    before = [logits(domain) for domain in range(4)]
    for swap in range(1000):
        with bank.pinned(swap % 4, lambda domain=swap % 4: states[domain]):
            pass
    assert bank.stats.evictions >= 1000
    assert bytes_of(model) == content
    for domain in range(4):
        torch.testing.assert_close(logits(domain), before[domain], rtol=0, atol=1e-6)


def test_two_adapters_of_a_batch_are_read_anew_after_a_swap(model: nn.Module) -> None:
    handle = inject(model, CONFIG, slots=3)
    states = [random_state(handle, seed=seed) for seed in range(4)]
    batch = batch_of([clip(2, 5, seed=1), clip(3, 4, seed=2)])
    bank = AdapterBank(handle)

    def logits(first: int, second: int) -> torch.Tensor:
        with (
            bank.pinned(first, lambda: states[first]) as one,
            bank.pinned(second, lambda: states[second]) as two,
        ):
            routing = handle.route([one, two], **batch.routing)
            with torch.inference_mode(), handle.use(routing):
                return model(**batch.inputs).logits[batch.prompt_mask]

    before = logits(0, 1)
    logits(2, 3)
    logits(3, 2)
    torch.testing.assert_close(logits(0, 1), before, rtol=1e-4, atol=1e-4)


def test_a_bank_takes_gradients_off_and_dropout_out() -> None:
    bank = small_bank()
    assert not any(parameter.requires_grad for parameter in bank._handle.parameters())
    assert not bank._handle.training


class SlowLoad:
    """A load that waits until it is let go, and counts how often it was begun."""

    def __init__(self, mark: float) -> None:
        self.mark, self.calls = mark, 0
        self.began, self.go = threading.Event(), threading.Event()

    def __call__(self) -> AdapterState:
        self.calls += 1
        self.began.set()
        assert self.go.wait(timeout=30)
        return small_state(self.mark)


def test_callers_that_want_one_key_share_one_load_and_pin_it_each() -> None:
    bank, load = small_bank(), SlowLoad(1.0)
    with ThreadPoolExecutor(3) as pool:
        slots = [pool.submit(bank.acquire, "a", load) for _ in range(3)]
        assert load.began.wait(timeout=30)
        load.go.set()
        assert len({slot.result(timeout=30) for slot in slots}) == 1
    assert load.calls == 1
    assert (bank.stats.misses, bank.stats.hits) == (1, 2)
    for _ in range(3):
        bank.release("a")
    assert bank.stats.pinned == 0


def test_a_resident_adapter_is_served_while_another_is_loaded() -> None:
    bank, load = small_bank(), SlowLoad(2.0)
    bank.acquire("a", lambda: small_state(1.0))
    with ThreadPoolExecutor(1) as pool:
        loading = pool.submit(bank.acquire, "b", load)
        assert load.began.wait(timeout=30)
        assert bank.acquire("a", lambda: pytest.fail("resident already")) == 1
        load.go.set()
        assert loading.result(timeout=30) == 2


def test_a_load_that_fails_is_tried_again_by_the_next_who_asks() -> None:
    bank = small_bank()
    with pytest.raises(OSError, match="gone"):
        bank.acquire("a", lambda: (_ for _ in ()).throw(OSError("gone")))
    assert bank.acquire("a", lambda: small_state(1.0)) in range(1, SLOTS + 1)


def test_an_adapter_laid_out_for_its_slot_is_the_same_adapter(model: nn.Module) -> None:
    handle = inject(model, CONFIG, slots=2)
    state = random_state(handle, seed=3)
    staged = state.staged(torch.float32, pinned=False)
    for slot, one in ((1, state), (2, staged)):
        handle.load_state(one, slot)
    first, second = handle.export_state(1), handle.export_state(2)
    for name, layer in first.layers.items():
        assert layer.A.equal(second.layers[name].A)
        assert layer.B.equal(second.layers[name].B)
    assert staged.bytes == state.bytes
    assert all(layer.B.flatten(1).t().is_contiguous() for layer in staged.layers.values())


class Gone(Exception):
    """Ends a waiting."""


class Waiting:
    """Somebody who wants a key, on a thread of their own."""

    def __init__(self, bank: AdapterBank, key: str) -> None:
        self.slot: int | None = None
        self.gone = threading.Event()
        before = bank.stats.waits
        self._thread = threading.Thread(target=self._acquire, args=(bank, key), daemon=True)
        self._thread.start()
        until(lambda: self.slot is not None or bank.stats.waits > before)

    def _acquire(self, bank: AdapterBank, key: str) -> None:
        try:
            self.slot = bank.acquire(key, lambda: small_state(1.0), waiting=self._look)
        except Gone:
            self.slot = 0

    def _look(self) -> None:
        if self.gone.is_set():
            raise Gone


def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def full_bank() -> AdapterBank:
    """`a`, `b` and `c`, used in this order, have all slots."""
    bank = small_bank()
    for key in "abc":
        bank.acquire(key, lambda: small_state(1.0))
    return bank


def test_who_waits_for_a_slot_gets_one_in_the_order_of_the_line() -> None:
    bank = full_bank()
    first, second = Waiting(bank, "d"), Waiting(bank, "e")
    bank.release("b")
    until(lambda: first.slot is not None)
    assert (first.slot, second.slot) == (2, None)
    bank.release("a")
    until(lambda: second.slot is not None)
    assert second.slot == 1


def test_who_gives_up_lets_the_next_in_line_go_first() -> None:
    bank = full_bank()
    first, second = Waiting(bank, "d"), Waiting(bank, "e")
    first.gone.set()
    until(lambda: first.slot == 0)
    bank.release("c")
    until(lambda: second.slot == 3)
    assert "d" not in bank.resident()


def test_a_rare_adapter_is_not_kept_waiting_for_ever_by_popular_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("milora.bank.PATIENCE_S", 0.0)
    bank = full_bank()
    rare, popular = Waiting(bank, "rare"), Waiting(bank, "a")
    assert (
        bank.acquire("b", lambda: small_state(1.0), waiting=lambda: None) == 2
    )  # the others are not held up
    assert (rare.slot, popular.slot) == (None, None)
    bank.release("a")
    until(lambda: rare.slot == 1)
    bank.release("c")
    until(lambda: popular.slot == 3)


def test_before_the_first_in_line_has_waited_for_long_nobody_waits_behind_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("milora.bank.PATIENCE_S", 600.0)
    bank = full_bank()
    rare, popular = Waiting(bank, "rare"), Waiting(bank, "a")
    assert (rare.slot, popular.slot) == (None, 1)


def test_many_threads_over_few_slots_all_get_their_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("milora.bank.PATIENCE_S", 0.005)
    bank, wrong = small_bank(), []

    def job(number: int) -> None:
        key = number * 7 % 5
        slot = bank.acquire(key, lambda: small_state(float(key)), waiting=lambda: None)
        held = bank._handle.export_state(slot).layers["layer"].A
        if not torch.equal(held, torch.full((2, 4), float(key))):
            wrong.append(key)
        bank.release(key)

    with ThreadPoolExecutor(12) as pool:
        for done in [pool.submit(job, number) for number in range(300)]:
            done.result(timeout=60)
    assert not wrong
    assert bank.stats.pinned == 0
    assert bank.stats.evictions > 0


def test_what_is_brought_up_ahead_takes_a_free_slot_and_nobody_elses() -> None:
    bank = small_bank()
    for key in "abc":
        assert bank.prefetch(key, lambda: small_state(1.0))
    assert bank.stats.pinned == 0
    assert not bank.prefetch("a", lambda: pytest.fail("resident already"))
    assert not bank.prefetch("d", lambda: pytest.fail("no slot is free"))
    assert list(bank.resident()) == ["a", "b", "c"]
