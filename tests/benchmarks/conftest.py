"""A tiny backbone with four domains, and a report made up by hand."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
import torch

from benchmarks.machine import Machine
from benchmarks.report import Breakdown, Comparison, Report, Row, Share
from benchmarks.spread import Spread
from benchmarks.subject import Subject, prepare
from tests.tiny_backbone import write_tiny_backbone
from tests.workers.adapters import load, publish_random
from training.world import DOMAINS


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tiny_store(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A tiny backbone's folder, and a store with a random adapter of each domain; read only."""
    folder = tmp_path_factory.mktemp("store")
    backbone = write_tiny_backbone(folder / "tiny")
    loaded = load(backbone)
    for seed, domain in enumerate(DOMAINS, start=1):
        publish_random(loaded, folder / "models", domain, seed)
    return backbone, folder / "models"


@pytest.fixture(scope="session")
def subject(tiny_store: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Subject:
    """What the comparisons measure, in small: one clip of each domain."""
    backbone, store = tiny_store
    return prepare(str(backbone), store, clips_per_domain=1, scratch=tmp_path_factory.mktemp("bench"))


@pytest.fixture
def report() -> Report:
    row = Row(
        metric="whole answers",
        unit="tokens/s",
        higher_is_better=True,
        name="together",
        against="apart",
        value=Spread.of([300.0, 400.0]),
        baseline=Spread.of([100.0, 110.0]),
        ratio=Spread.of([3.0, 4.0]),
    )
    phases = Breakdown(
        title="start to ready", shares=(Share(name="import", unit="s", value=Spread.of([0.5])),)
    )
    machine = Machine(
        cpu="A processor",
        cores=2,
        memory_gib=8.0,
        system="Linux 6",
        python="3.11.0",
        packages={"torch": "2.15"},
        torch_threads=2,
        torch_capability="AVX512",
        idle=0.99,
    )
    comparison = Comparison(
        key="batching",
        title="Together",
        how="Some clips.",
        rows=(row,),
        breakdowns=(phases,),
        notes=("A note.",),
    )
    return Report(
        command="python -m benchmarks",
        began_at=datetime(2026, 1, 2, tzinfo=UTC),
        seconds=12.0,
        machine=machine,
        subject="a backbone",
        comparisons=(comparison,),
    )
