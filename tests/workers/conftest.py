"""One tiny backbone with four domains for all tests of the workers."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from model_store.backbone import Backbone
from tests.tiny_backbone import write_tiny_backbone
from tests.workers.adapters import load, publish_random
from tests.workers.service import Service
from tests.workers.videos import blobs, write_video
from visum.valkey import EmbeddedValkey

DOMAINS = ("cooking", "sports", "traffic", "wildlife")


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def backbone_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny native checkpoint; read only."""
    return write_tiny_backbone(tmp_path_factory.mktemp("backbones") / "tiny")


@pytest.fixture(scope="session")
def backbone(backbone_folder: Path) -> Backbone:
    """The tiny backbone, without experts. Whoever injects some removes them."""
    return load(backbone_folder)


@pytest.fixture
def four_domains(backbone: Backbone, tmp_path: Path) -> Path:
    """A model store with one random adapter for each of four domains."""
    store = tmp_path / "models"
    for seed, domain in enumerate(DOMAINS, start=1):
        publish_random(backbone, store, domain, seed)
    return store


@pytest.fixture(scope="session")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seconds of H.264."""
    return write_video(tmp_path_factory.mktemp("videos") / "clip.mp4", 2.0, paint=blobs(1))


@pytest.fixture(scope="module")
def running(
    tmp_path_factory: pytest.TempPathFactory, backbone_folder: Path, backbone: Backbone
) -> Iterator[Service]:
    """One service with one worker for all tests of a module; every test uses a domain of its own."""
    valkey = EmbeddedValkey(Path(tempfile.mkdtemp(prefix="visum-", dir="/tmp")) / "valkey")
    process = valkey.start()
    service = Service(valkey.url, tmp_path_factory.mktemp("service"), backbone_folder)
    publish_random(backbone, service.models, "traffic", 1)
    service.start_worker(step_s=0.02)
    yield service
    service.close()
    process.terminate()
    process.wait(timeout=20)
    shutil.rmtree(valkey.folder.parent)


@pytest.fixture
def service(redis_url: str, tmp_path: Path, backbone_folder: Path) -> Iterator[Service]:
    """Queue, records and blobs on a Valkey of their own; workers are started by the test."""
    service = Service(redis_url, tmp_path / "data", backbone_folder)
    yield service
    service.close()
