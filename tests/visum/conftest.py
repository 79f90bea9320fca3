"""One tiny backbone and a few clips of the demo world for all tests of the command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.tiny_backbone import write_tiny_backbone


@pytest.fixture(scope="session")
def tiny_backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A native checkpoint that loads in no time and answers gibberish; read only."""
    return write_tiny_backbone(tmp_path_factory.mktemp("backbones") / "tiny")


@pytest.fixture(scope="session")
def clips(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three real videos."""
    from training.world.video import render_folder

    return list(render_folder("traffic", 3, 5, tmp_path_factory.mktemp("clips")))
