"""A new version of a domain, published into a service that is at work."""

from __future__ import annotations

import time
from typing import Any

from model_store.backbone_ref import ADAPTERS, SHIPPED_ROOT
from model_store.registry import AdapterRegistry
from tests.acceptance.clips import Video
from tests.acceptance.system import System
from tests.acceptance.variants import files_of, publish_files

LOOK_INTO_QUEUE_S = 1.0


def _publish_second_version(system: System, registry: AdapterRegistry, domain: str, experts_of: str) -> int:
    """Version 2 of a domain answers with another domain's experts: whoever gets it can be told by the words."""
    donor = registry.get(experts_of, 1)
    draft = donor.manifest.draft().model_copy(update={"domain": domain})
    return publish_files(system.model_store, files_of(donor), draft, SHIPPED_ROOT / ADAPTERS).version


def test_a_new_version_answers_later_requests_and_leaves_running_ones_alone(
    system: System, registry: AdapterRegistry, alone: dict[Video, dict[str, Any]]
) -> None:
    video = next(video for video in alone if video.domain == "sports")
    first = alone[video]
    with system.frozen_mid_answer(video.path, domain="sports") as running:
        # A stopped worker's last look into the queue is still open: nothing must be handed to it.
        time.sleep(1.5 * LOOK_INTO_QUEUE_S)
        assert _publish_second_version(system, registry, "sports", experts_of="cooking") == 2
        later = system.summarize(video.path, domain="sports")
        assert later["model"]["adapter_version"] == 2
        assert later["summary"] != first["summary"]
        assert system.record(running.summary_id)["status"] == "running"
    resumed = system.result(running.summary_id)
    assert system.record(running.summary_id)["attempts"] == 1
    assert resumed["model"]["adapter_version"] == 1
    assert resumed["summary"] == first["summary"]
    assert resumed["gates"] == first["gates"]
    pinned = system.summarize(video.path, domain="sports", adapter_version=1)
    assert pinned["model"]["adapter_version"] == 1
    assert pinned["summary"] == first["summary"]
    assert system.http.get("/domains/sports").json()["versions"] == [1, 2]
