"""The backbone is frozen: however often experts are exchanged beside it, its bytes are the same."""

from __future__ import annotations

from model_store.backbone import Backbone, weights_sha256
from model_store.registry import AdapterRegistry
from tests.acceptance.clips import DOMAINS, Video
from tests.acceptance.in_process import bench, prompt_of
from workers.engine import Engine, EngineLimits
from workers.prompt import Prompt
from workers.request import EngineRequest

SWAPS = 1000
NEW_TOKENS = 24


def test_a_thousand_swaps_over_four_domains_leave_the_backbone_and_its_answers_as_they_were(
    backbone: Backbone, registry: AdapterRegistry, videos: list[Video]
) -> None:
    before = weights_sha256(backbone.model)
    prompts = {video.domain: prompt_of(backbone, video.path) for video in videos}
    with bench(backbone, registry, slots=2) as on:
        engine = Engine(backbone, on.experts, EngineLimits())
        engine.start()

        def swap_in(domain: str) -> int:
            slot = on.bank.acquire(domain, lambda: on.states[domain])
            on.bank.release(domain)
            return slot

        def tokens(domain: str, prompt: Prompt) -> tuple[int, ...]:
            request = EngineRequest(prompt, NEW_TOKENS, swap_in(domain))
            return engine.submit(request).result(timeout=240).token_ids

        try:
            first = {domain: tokens(domain, prompts[domain]) for domain in DOMAINS}
            misses = on.bank.stats.misses
            for swap in range(SWAPS):
                swap_in(DOMAINS[swap % len(DOMAINS)])
            assert on.bank.stats.misses - misses == SWAPS
            assert weights_sha256(backbone.model) == before
            assert {domain: tokens(domain, prompts[domain]) for domain in DOMAINS} == first
        finally:
            engine.close()
    assert weights_sha256(backbone.model) == before
