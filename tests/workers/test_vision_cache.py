"""Videos seen before: bounded memory, and a vision tower that is spared."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from milora import MiloraModel
from model_store.backbone import Backbone
from tests.workers.requests import answers, engine_of, experts_of, prompt_of, request_of
from workers.prefill import Look
from workers.vision_cache import Seen, VisionCache


def seen(rows: int) -> Seen:
    """Features of `rows` x 4 numbers of four bytes, and one pooled number."""
    return Seen(torch.zeros(rows, 4), torch.zeros(1), None)


@pytest.fixture
def tower(backbone: Backbone) -> Iterator[list[int]]:
    """The number of patches in every pass through the vision tower."""
    passes: list[int] = []
    vision = backbone.model.model.vision_model
    hook = vision.register_forward_pre_hook(
        lambda _, args, kwargs: passes.append(len(kwargs["pixel_values"])), with_kwargs=True
    )
    yield passes
    hook.remove()


@pytest.fixture(scope="module")
def experts(backbone: Backbone) -> Iterator[MiloraModel]:
    handle = experts_of(backbone, 2)
    yield handle
    handle.remove()


def test_the_least_recently_used_video_goes_first() -> None:
    cache = VisionCache(budget=2 * seen(3).bytes)
    for key in "ab":
        cache.put(key, seen(3))
    cache.get("a")
    cache.put("c", seen(3))
    assert [cache.get(key) is not None for key in "abc"] == [True, False, True]
    assert cache.bytes == 2 * seen(3).bytes


def test_a_video_larger_than_the_whole_cache_is_not_kept() -> None:
    cache = VisionCache(budget=10)
    cache.put("a", seen(3))
    assert cache.get("a") is None
    assert cache.bytes == 0


def test_a_video_that_is_put_again_counts_once() -> None:
    cache = VisionCache(budget=1000)
    cache.put("a", seen(3))
    cache.put("a", seen(4))
    assert cache.bytes == seen(4).bytes
    cache.clear()
    assert (cache.bytes, cache.get("a")) == (0, None)


def test_a_second_question_about_a_video_does_not_pay_for_the_tower_again(
    backbone: Backbone, experts: MiloraModel, tower: list[int]
) -> None:
    engine = engine_of(backbone, experts)
    asked = request_of(backbone, 1, slot=1, vision_key="video 1, adapter 1")
    other = request_of(
        backbone, 1, slot=1, prompt=prompt_of(backbone, 1, "Who?"), vision_key="video 1, adapter 1"
    )
    first, second = answers(engine, [asked])[0], answers(engine, [other])[0]
    assert len(tower) == 1
    fresh = answers(engine_of(backbone, experts), [other])[0]
    assert second.token_ids == fresh.token_ids
    assert second.gates is not None
    assert fresh.gates is not None
    torch.testing.assert_close(second.gates.gates, fresh.gates.gates, rtol=0, atol=1e-6)
    assert second.gates.layers == first.gates.layers


def test_an_adapter_that_comes_back_in_another_slot_finds_its_features(
    backbone: Backbone, experts: MiloraModel, tower: list[int]
) -> None:
    engine = engine_of(backbone, experts)
    answers(engine, [request_of(backbone, 1, slot=1, vision_key="a")])
    experts.load_state(experts.export_state(1), 2)
    again = answers(engine, [request_of(backbone, 1, slot=2, vision_key="a")])[0]
    assert len(tower) == 1
    assert again.gates is not None
    assert again.gates.slot == 2


def test_a_video_seen_by_other_experts_is_looked_at_again(
    backbone: Backbone, experts: MiloraModel, tower: list[int]
) -> None:
    engine = engine_of(backbone, experts)
    for slot in (0, 1):
        answers(engine, [request_of(backbone, 1, slot=slot, vision_key=("video 1", slot))])
    assert len(tower) == 2


def test_known_and_new_videos_share_a_prefill(
    backbone: Backbone, experts: MiloraModel, tower: list[int]
) -> None:
    engine = engine_of(backbone, experts)
    requests = [request_of(backbone, seed, slot=1, vision_key=seed) for seed in range(3)]
    answers(engine, requests[:1])
    found = answers(engine, requests)
    assert tower == [requests[0].prompt.patches, sum(request.prompt.patches for request in requests[1:])]
    alone = [answers(engine_of(backbone, experts), [request])[0] for request in requests]
    assert [answer.token_ids for answer in found] == [answer.token_ids for answer in alone]


def test_videos_that_are_looked_at_for_routing_are_looked_at_together(
    backbone: Backbone, tower: list[int]
) -> None:
    engine = engine_of(backbone)
    prompts = [prompt_of(backbone, seed) for seed in range(3)]
    futures = [engine.look(Look(prompt, key=seed)) for seed, prompt in enumerate(prompts)]
    engine.step()
    assert tower == [sum(prompt.patches for prompt in prompts)]
    for prompt, future in zip(prompts, futures, strict=True):
        out = backbone.model.model.vision_model(
            pixel_values=prompt.pixel_values, grid_thw=prompt.grid_thw, merge_sizes=prompt.merge_sizes
        )
        expected = out.last_hidden_state.mean(0)
        torch.testing.assert_close(future.result(timeout=0), expected, rtol=1e-4, atol=1e-4)


def test_what_routing_has_seen_serves_the_frozen_backbones_answer(
    backbone: Backbone, tower: list[int]
) -> None:
    engine = engine_of(backbone)
    engine.look(Look(prompt_of(backbone, 2), key="frozen 2"))
    answers(engine, [request_of(backbone, 2, vision_key="frozen 2")])
    assert len(tower) == 1


def test_a_video_that_was_deleted_is_let_go_of_with_everything_made_of_it() -> None:
    cache = VisionCache(10_000)
    for key in (("gone", 1), ("gone", 2), ("stays", 1)):
        cache.put(key, seen(8))
    held = cache.bytes
    assert cache.forget(lambda key: key[0] == "gone") == 2
    assert cache.get(("gone", 1)) is None
    assert cache.get(("stays", 1)) is not None
    assert cache.bytes == held // 3


def test_a_video_that_stands_in_one_prefill_several_times_passes_the_tower_once(
    backbone: Backbone, experts: MiloraModel, tower: list[int]
) -> None:
    engine = engine_of(backbone, experts)
    same = [request_of(backbone, 1, slot=1, vision_key="video 1, adapter 1") for _ in range(3)]
    others = [
        request_of(backbone, 1, slot=2, vision_key="video 1, adapter 2"),
        request_of(backbone, 1, slot=1),
    ]
    found = answers(engine, [*same, *others])
    patches = same[0].prompt.patches
    assert tower == [3 * patches]  # that of the two keys, and of the one without
    assert len({answer.token_ids for answer in (*found[:3], found[4])}) == 1
    assert [answer.gates.slot for answer in found] == [1, 1, 1, 2, 1]
