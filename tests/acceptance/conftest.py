"""The whole system on the shipped weights: one `visum serve` with two workers, and the same weights at hand."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from model_store.backbone import Backbone, load_backbone
from model_store.backbone_ref import DEFAULT_BACKBONE, adapter_roots
from model_store.registry import AdapterRegistry
from tests.acceptance.clips import Video, held_out_videos
from tests.acceptance.system import System
from tests.visum.running import serving

MAX_UPLOAD_BYTES = 8 * 2**20


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def videos(tmp_path_factory: pytest.TempPathFactory) -> list[Video]:
    """Eight videos, two of each domain, that no training has seen."""
    return held_out_videos(tmp_path_factory.mktemp("videos"))


@pytest.fixture(scope="session")
def video(videos: list[Video]) -> Video:
    """One of them, where any will do."""
    return videos[0]


@pytest.fixture(scope="session")
def system() -> Iterator[System]:
    """`visum serve` with two workers, as it is installed but for a small upload cap and frequent progress."""
    with (
        tempfile.TemporaryDirectory(prefix="visum-", dir="/tmp") as folder,
        serving(
            Path(folder),
            Path(DEFAULT_BACKBONE),
            VISUM_WORKERS="2",
            VISUM_MAX_UPLOAD_BYTES=str(MAX_UPLOAD_BYTES),
            VISUM_WATCH_SECONDS="0.02",
        ) as service,
    ):
        running = System(service)
        yield running
        running.close()


@pytest.fixture(scope="session")
def alone(system: System, videos: list[Video]) -> dict[Video, dict[str, Any]]:
    """Every video's result from its domain's shipped experts, asked for one after the other."""
    return {video: system.summarize(video.path, domain=video.domain, adapter_version=1) for video in videos}


@pytest.fixture(scope="session")
def backbone() -> Backbone:
    """The shipped backbone in this process, without experts. Whoever injects some removes them."""
    return load_backbone(DEFAULT_BACKBONE, device="cpu")


@pytest.fixture(scope="session")
def registry(backbone: Backbone) -> AdapterRegistry:
    """The shipped adapters, without what the tests publish."""
    return AdapterRegistry(adapter_roots(None), backbone_fingerprint=backbone.fingerprint)
