"""Adapters that must not answer: refused by name, and the service goes on with the others."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from model_store.registry import AdapterEntry, AdapterRegistry
from tests.acceptance.clips import DOMAINS, Video
from tests.acceptance.system import System, wait_until
from tests.acceptance.variants import (
    publish_corrupt,
    publish_doubled,
    publish_foreign,
    publish_misplaced,
    publish_misshapen,
)

Publish = Callable[[Path, AdapterEntry, str], AdapterEntry]

REFUSED_AT_LOAD: dict[str, tuple[Publish, str]] = {
    "corrupt": (publish_corrupt, "sha256"),
    "misshapen": (publish_misshapen, "the backbone's is"),
    "misplaced": (publish_misplaced, "no such module"),
    "oversized": (publish_doubled, "exceed"),
}


@pytest.fixture(scope="module")
def published(system: System, registry: AdapterRegistry) -> dict[str, AdapterEntry]:
    """All of them, in the store of the running service, each as a domain of its own."""
    sound = registry.get("traffic", 1)
    every = {name: publish for name, (publish, _) in REFUSED_AT_LOAD.items()} | {"foreign": publish_foreign}
    return {name: publish(system.model_store, sound, name) for name, publish in every.items()}


@pytest.mark.parametrize("domain", REFUSED_AT_LOAD)
def test_an_unsound_adapter_is_refused_by_name_and_the_worker_goes_on(
    system: System, published: dict[str, AdapterEntry], video: Video, domain: str
) -> None:
    workers = system.workers()
    record = system.ended(system.submit(video.path, domain=domain))
    assert record["status"] == "failed"
    assert record["error"]["code"] == "adapter.refused"
    assert record["error"]["message"] == f"Version 1 of '{domain}' can't be used."
    (told, *_) = (
        line for line in system.service.log.read_text().splitlines() if f"{domain}/1 is refused" in line
    )
    assert REFUSED_AT_LOAD[domain][1] in told
    assert system.summarize(video.path, domain=video.domain)["model"]["adapter"] == video.domain
    assert system.workers() == workers


def test_an_adapter_of_another_backbone_is_set_aside_by_name(
    system: System, published: dict[str, AdapterEntry], video: Video
) -> None:
    body = system.http.get("/domains").json()
    assert "foreign" not in {domain["name"] for domain in body["domains"]}
    refused = next(refused for refused in body["refused"] if refused["domain"] == "foreign")
    assert (refused["version"], "backbone another" in refused["reason"]) == (1, True)
    answer = system.post(video.path, domain="foreign")
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "domain")


def test_auto_goes_on_among_the_sound_domains(
    system: System, published: dict[str, AdapterEntry], video: Video
) -> None:
    domain = system.summarize(video.path)["domain"]
    assert set(domain["scores"]) <= {"general", *DOMAINS}


def test_a_worker_that_starts_among_unsound_adapters_comes_up_and_answers(
    system: System, published: dict[str, AdapterEntry], video: Video
) -> None:
    before = system.workers()
    for pid in before:
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: len(system.workers() - before) == 2, "new workers are started")
    assert system.summarize(video.path, domain=video.domain)["summary"]
    assert len(system.workers() - before) == 2
