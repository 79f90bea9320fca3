"""Eight videos over four domains in flight together: each gets what it gets alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from model_store.backbone import Backbone
from model_store.registry import AdapterRegistry
from tests.acceptance.clips import DOMAINS, Video
from tests.acceptance.in_process import bench, prompt_of
from tests.acceptance.system import System
from tests.workers.requests import answers
from workers.engine import Engine, EngineLimits
from workers.request import EngineRequest


def test_a_batch_of_eight_over_four_domains_gives_each_the_tokens_that_it_gets_alone(
    backbone: Backbone, registry: AdapterRegistry, videos: list[Video], alone: dict[Video, dict[str, Any]]
) -> None:
    with bench(backbone, registry, slots=4) as on:
        slots = {domain: on.bank.acquire(domain, lambda d=domain: on.states[d]) for domain in DOMAINS}
        requests = [
            EngineRequest(
                prompt_of(backbone, video.path), backbone.manifest.max_new_tokens, slots[video.domain]
            )
            for video in videos
        ]
        limits = EngineLimits(max_batch=8)
        by_itself = [answers(Engine(backbone, on.experts, limits), [request])[0] for request in requests]
        together = answers(Engine(backbone, on.experts, limits), requests)
    assert len({request.prompt.tokens for request in requests}) > 1, "padding is not put to the test"
    assert [answer.token_ids for answer in together] == [answer.token_ids for answer in by_itself]
    assert [answer.text for answer in together] == [alone[video]["summary"] for video in videos]
    for one, other in zip(by_itself, together, strict=True):
        assert one.gates is not None
        assert other.gates is not None
        torch.testing.assert_close(one.gates.gates, other.gates.gates, rtol=0, atol=1e-5)


def test_eight_uploads_at_once_are_answered_as_one_after_the_other(
    system: System, videos: list[Video], alone: dict[Video, dict[str, Any]]
) -> None:
    ids = [system.submit(video.path, domain=video.domain, adapter_version=1) for video in videos]
    for video, summary_id in zip(videos, ids, strict=True):
        result = system.result(summary_id)
        assert result["summary"] == alone[video]["summary"]
        assert result["usage"] == alone[video]["usage"]
        assert result["video"] == alone[video]["video"]
        for layer, before in zip(result["gates"]["layers"], alone[video]["gates"]["layers"], strict=True):
            np.testing.assert_allclose(layer["experts"], before["experts"], rtol=0, atol=1e-4)


def test_auto_finds_the_domain_of_every_video(
    system: System, videos: list[Video], alone: dict[Video, dict[str, Any]]
) -> None:
    ids = [system.submit(video.path) for video in videos]
    chosen = [system.result(summary_id)["domain"] for summary_id in ids]
    assert [domain["selected"] for domain in chosen] == [video.domain for video in videos]
    assert all(set(DOMAINS) | {"general"} <= set(domain["scores"]) for domain in chosen)
