"""One tiny backbone for all tests of the store, and stores of their own for each."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from model_store.checkpoint import checkpoint_fingerprint
from model_store.registry import AdapterRegistry
from tests.tiny_backbone import write_tiny_backbone


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def backbone_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny native checkpoint; read only."""
    return write_tiny_backbone(tmp_path_factory.mktemp("backbones") / "tiny")


@pytest.fixture(scope="session")
def fingerprint(backbone_folder: Path) -> str:
    return checkpoint_fingerprint(backbone_folder)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """An empty folder of adapters."""
    folder = tmp_path / "adapters"
    folder.mkdir()
    return folder


@pytest.fixture
def registry(root: Path) -> AdapterRegistry:
    return AdapterRegistry([root])
