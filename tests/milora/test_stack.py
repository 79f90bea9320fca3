"""Experts of a decode step, against a loop over rows that knows nothing of groups."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from milora import (
    DecodeExperts,
    GateRecord,
    GroupConfig,
    LayerInfo,
    MiloraConfig,
    MiloraModel,
    RoutingError,
    inject,
)
from milora.stack import Places

SLOTS, K, R, WIDTH = 4, 3, 2, 6
OUTPUTS = {"q": 5, "k": 3, "v": 3}
SITE = ((("q", 5),), (("k", 3), ("v", 3)))


def injected(*targets: str) -> MiloraModel:
    """q, k and v over one input, experts of random numbers in the targets of every slot but the second."""
    model = nn.ModuleDict({name: nn.Linear(WIDTH, out) for name, out in OUTPUTS.items()})
    group = GroupConfig(targets, K, R, 3.0)
    handle = inject(model, MiloraConfig(temporal=group), slots=SLOTS)
    for slot in (1, 3, 4):
        for layer in handle.layers:
            A, B = torch.randn(K * R, layer.fan_in), torch.randn(K * R, layer.fan_out)
            layer.write(slot, group, A, B, torch.zeros(K, WIDTH), torch.zeros(K))
    return handle


def record_of(handle: MiloraModel, slot: int) -> GateRecord:
    infos = tuple(LayerInfo(layer.name, layer.group, K) if slot else None for layer in handle.layers)
    return GateRecord(slot, infos, torch.randn(len(handle.layers), K).softmax(-1))


def by_hand(handle: MiloraModel, x: torch.Tensor, y: torch.Tensor, records: list[GateRecord]) -> torch.Tensor:
    """Row by row and expert by expert, from what the layers hold."""
    out, column = y.clone(), 0
    for name, width in OUTPUTS.items():
        for layer in handle.layers:
            if layer.name == name:
                for row, record in enumerate(records):
                    for k in range(K if record.slot else 0):
                        block = slice(k * R, (k + 1) * R)
                        A, B = layer.A[record.slot - 1, block], layer.B[record.slot - 1, block]
                        gate = record.gates[layer.index, k]
                        out[row, column : column + width] += gate * (3.0 / R) * (A @ x[row]) @ B
        column += width
    return out


@settings(max_examples=60, deadline=None)
@given(
    slots=st.lists(st.sampled_from([0, 1, 3, 4]), min_size=1, max_size=7).filter(any),
    targets=st.sampled_from([("q", "k", "v"), ("q", "v"), ("k",)]),
    same_shape=st.booleans(),
)
def test_rows_of_any_adapters_equal_a_loop_over_rows(
    slots: list[int], targets: tuple[str, ...], same_shape: bool
) -> None:
    torch.manual_seed(len(slots))
    handle = injected(*targets)
    records = [record_of(handle, slot) for slot in slots]
    x, y = torch.randn(len(slots), WIDTH), torch.randn(len(slots), sum(OUTPUTS.values()))
    expected = by_hand(handle, x, y, records)
    experts = DecodeExperts(handle, [SITE], rows=7)
    for row, record in enumerate(records):
        experts.join(row, record)
    arranged = experts.arrange(slots, same_shape=same_shape)
    assert arranged is not None
    arranged[0].add(x, y)
    torch.testing.assert_close(y, expected, rtol=1e-5, atol=1e-5)


def test_rows_that_stand_by_slot_already_are_not_reordered() -> None:
    device = torch.device("cpu")
    for slots in ([2, 2, 2], [1, 2, 3], [1, 1, 2, 2], [3, 0, 3]):
        assert Places.of(slots, device).order is None
    assert Places.of([2, 1], device).order is not None


@pytest.mark.parametrize(
    ("slots", "width", "each"),
    [
        ([1] * 11 + [100], 2, 11),
        ([97, 3, 50, 12, 8, 60, 33], 7, 1),
        ([9, 0, 1, 9], 2, 2),
        ([2, 2, 5, 1, 8, 8, 8, 3], 5, 3),
    ],
)
def test_a_step_does_not_multiply_the_slots_that_nobody_uses(slots: list[int], width: int, each: int) -> None:
    places = Places.of(slots, torch.device("cpu"))
    assert (places.width, places.each) == (width, each)
    used = places.of_slots(torch.arange(100)) + 1
    assert set(used.tolist()) == {slot for slot in slots if slot}


def test_slots_that_lie_close_together_are_not_copied() -> None:
    stack = torch.arange(100)
    for slots in ([1, 2, 3], [3, 1, 2], [4, 4, 5], [7, 8]):
        assert Places.of(slots, torch.device("cpu")).of_slots(stack)._base is stack


def test_a_site_where_no_adapter_of_the_batch_has_experts_is_passed_over() -> None:
    handle = injected("q", "k", "v")
    for layer in handle.layers:
        if layer.name == "q":
            layer.clear(3)
    experts = DecodeExperts(handle, [((("q", 5),),), ((("k", 3), ("v", 3)),)], rows=2)
    alone, beside, without = (experts.arrange(slots) for slots in ([3, 3], [3, 1], [2, 2]))
    assert [site is not None for site in alone] == [False, True]
    assert [site is not None for site in beside] == [True, True]
    assert [site is not None for site in without] == [False, False]
    assert all(site is not None for site in experts.arrange([3, 3], same_shape=True))


def test_captured_graphs_see_one_shape_whatever_the_mixture() -> None:
    shapes = set()
    for slots in ([1, 1, 1], [1, 2, 3], [4, 0, 1]):
        places = Places.of(slots, torch.device("cpu"), all_slots=SLOTS)
        shapes.add((places.low, places.width, places.each, tuple(places.order.shape)))
    assert shapes == {(0, SLOTS, 3, (SLOTS * 3,))}


def test_a_row_that_is_taken_over_keeps_nothing_of_its_former_request() -> None:
    handle = injected("q", "k", "v")
    experts = DecodeExperts(handle, [SITE], rows=2)
    experts.join(0, record_of(handle, 3))
    experts.join(1, record_of(handle, 1))
    experts.move(1, 0)
    experts.join(1, None)
    x, y = torch.randn(2, WIDTH), torch.zeros(2, sum(OUTPUTS.values()))
    arranged = experts.arrange([1, 0])
    assert arranged is not None
    arranged[0].add(x, y)
    assert y[0].abs().sum() > 0
    assert not y[1].any()


def test_an_adapter_written_after_the_stack_was_built_is_the_stacks() -> None:
    handle = injected("q", "k", "v")
    experts = DecodeExperts(handle, [SITE], rows=1)
    state = handle.export_state(3)
    handle.load_state(state, 2)
    assert torch.equal(experts.stacks[0].A[1], experts.stacks[0].A[2])
    for B, _, _ in experts.stacks[0].blocks:
        assert torch.equal(B[1], B[2])
    assert handle.export_state(2).layers["k"].B.equal(state.layers["k"].B)


def test_without_any_adapter_there_is_nothing_to_arrange() -> None:
    handle = injected("q")
    assert DecodeExperts(handle, [SITE], rows=2).arrange([0, 0]) is None


def test_a_request_without_a_gate_that_it_needs_is_refused() -> None:
    handle = injected("q")
    experts = DecodeExperts(handle, [SITE], rows=1)
    with pytest.raises(RoutingError, match="q: the request has no gate"):
        experts.join(0, GateRecord(1, (None,), torch.zeros(1, K)))
