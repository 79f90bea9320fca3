"""The weights that are shipped: whole, small, made for each other, and readable by plain `peft`."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from model_store.adapters import load_adapter
from model_store.backbone import Backbone, load_backbone
from model_store.backbone_ref import ADAPTERS, DEFAULT_BACKBONE, SHIPPED_ROOT
from model_store.registry import AdapterEntry, AdapterRegistry
from tests.model_store.uniform_gates import milora_logits, noise_video, peft_logits

DOMAINS = ["cooking", "sports", "traffic", "wildlife"]
MAX_SHIPPED_BYTES = 25 * 2**20

pytestmark = [
    # peft asks transformers by a name that transformers is about to drop.
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),
]


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return load_backbone(DEFAULT_BACKBONE, device="cpu", dtype=torch.float32)


@pytest.fixture(scope="module")
def registry(backbone: Backbone) -> AdapterRegistry:
    return AdapterRegistry([SHIPPED_ROOT / ADAPTERS], backbone_fingerprint=backbone.fingerprint)


@pytest.fixture
def entry(registry: AdapterRegistry, domain: str) -> AdapterEntry:
    return registry.latest(domain)


def test_every_domain_is_there_and_none_is_refused(registry: AdapterRegistry) -> None:
    assert registry.domains() == DOMAINS
    assert registry.refused == []


def test_the_demo_says_what_it_is(backbone: Backbone) -> None:
    assert backbone.manifest.notice
    assert backbone.manifest.description
    assert (backbone.path / "README.md").read_text()


def test_backbone_and_adapters_stay_small() -> None:
    files: list[Path] = [path for path in SHIPPED_ROOT.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < MAX_SHIPPED_BYTES


@pytest.mark.parametrize("domain", DOMAINS)
def test_a_shipped_adapter_is_intact_and_fits_the_backbone(
    backbone: Backbone, registry: AdapterRegistry, entry: AdapterEntry
) -> None:
    registry.verify(entry)
    loaded = load_adapter(
        entry, backbone_fingerprint=backbone.fingerprint, module_shapes=backbone.module_shapes
    )
    assert loaded.prototype is not None
    assert {"training", "quality"} <= {name for name, value in entry.manifest if value}
    assert (entry.path / "README.md").read_text()


@pytest.mark.parametrize("domain", DOMAINS)
def test_plain_peft_gives_a_shipped_adapter_the_logits_of_uniform_gates(
    backbone: Backbone, entry: AdapterEntry
) -> None:
    batch = noise_video(backbone, side=64)
    ours = milora_logits(backbone, entry, batch)
    assert (ours - peft_logits(backbone, entry, batch)).abs().max() < 1e-4
