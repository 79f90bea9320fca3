"""One of several publishers that race for version numbers; apart from the tests, to start without torch."""

from __future__ import annotations

from multiprocessing.synchronize import Barrier
from pathlib import Path

from model_store.manifest import REQUIRED_FILES, AdapterDraft
from model_store.publish import publish
from model_store.registry import AdapterRegistry


def publish_repeatedly(root: Path, draft: str, times: int, start: Barrier) -> None:
    """Publish files whose content is the draft's description, so that a mixed-up version shows."""
    mine = AdapterDraft.model_validate_json(draft)
    registry = AdapterRegistry([root])
    files = dict.fromkeys(REQUIRED_FILES, mine.description.encode())
    start.wait(30)
    for _ in range(times):
        publish(registry, root, files, mine)
