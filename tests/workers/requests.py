"""Prompts of random frames, and engines turned by hand."""

from __future__ import annotations

from concurrent.futures import Future
from typing import Any

import numpy as np

from milora import AdapterBank, MiloraModel, inject
from model_store.backbone import Backbone
from tests.workers.adapters import random_state
from workers.decode import DecodedVideo
from workers.engine import Engine, EngineLimits
from workers.expert_room import room_for
from workers.prompt import Prompt, PromptBuilder
from workers.request import EngineAnswer, EngineRequest

NEW_TOKENS = 12


def random_video(seed: int, frames: int | None = None) -> DecodedVideo:
    """Frames of noise, 4 to 6 of them unless told otherwise, of a size that varies with the seed."""
    count = frames or 4 + seed % 3
    height = 24 + 8 * (seed % 2)
    pixels = np.random.default_rng(seed).integers(0, 255, (count, height, 40, 3), dtype=np.uint8)
    return DecodedVideo(pixels, [float(i) for i in range(count)], float(count), 24.0, 160, 120, 24 * count)


def prompt_of(backbone: Backbone, seed: int, instructions: str | None = None) -> Prompt:
    return PromptBuilder(backbone.processor, backbone.manifest).build(random_video(seed), instructions)


def request_of(backbone: Backbone, video: int, **fields: Any) -> EngineRequest:
    """A request about a random video, told by its number; `fields` are EngineRequest's."""
    return EngineRequest(**{"prompt": prompt_of(backbone, video), "max_new_tokens": NEW_TOKENS, **fields})


def engine_of(backbone: Backbone, experts: MiloraModel | None = None, **limits: int) -> Engine:
    return Engine(backbone, experts, EngineLimits(**limits))


def experts_of(backbone: Backbone, slots: int) -> MiloraModel:
    """Experts with a random adapter in every slot; the caller removes them."""
    states = [random_state(backbone, seed) for seed in range(1, slots + 1)]
    experts = inject(backbone.model, room_for([], experts=3, rank=2), slots=slots)
    bank = AdapterBank(experts)
    for seed, state in enumerate(states, start=1):
        slot = bank.acquire(seed, lambda state=state: state)
        assert slot == seed
    return experts


def turn(engine: Engine, futures: list[Future[EngineAnswer]], most: int = 500) -> None:
    """Take steps until every future is settled."""
    for _ in range(most):
        if all(future.done() for future in futures):
            return
        engine.step()
    raise AssertionError(f"unsettled after {most} steps")


def answers(engine: Engine, requests: list[EngineRequest]) -> list[EngineAnswer]:
    """All answers, the requests submitted together."""
    futures = [engine.submit(request) for request in requests]
    turn(engine, futures)
    return [future.result() for future in futures]
