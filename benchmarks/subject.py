"""What is measured: a backbone, its adapters, and clips that none of them was trained on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from milora import AdapterState
from model_store.adapters import load_adapter
from model_store.backbone import Backbone, load_backbone
from model_store.backbone_ref import adapter_roots, find_backbone
from model_store.checkpoint import checkpoint_fingerprint
from model_store.registry import AdapterEntry, AdapterRegistry
from training.world import DOMAINS, make_clip
from training.world.video import write_mp4
from workers.expert_room import adapter_state

FIRST_CLIP = 5_000
"""Of the test split, past the clips that the published quality was measured on."""


class NothingToMeasure(Exception):
    """The store lacks something that the comparisons need; the message says what."""


@dataclass(frozen=True)
class ClipFile:
    """One video of the demo world."""

    domain: str
    path: Path


@dataclass(frozen=True)
class Subject:
    """What the comparisons share. `backbone` is an absolute folder, `scratch` an empty one for their files."""

    backbone: Path
    store: Path | None
    clips: tuple[ClipFile, ...]
    entries: tuple[AdapterEntry, ...]
    scratch: Path

    @property
    def domains(self) -> list[str]:
        return [entry.domain for entry in self.entries]

    def load(self) -> Backbone:
        """A copy of the backbone of one's own, on the CPU."""
        return load_backbone(self.backbone, device="cpu", dtype=torch.float32)

    def states(self, backbone: Backbone) -> dict[str, AdapterState]:
        """Every domain's newest adapter in memory."""
        return {entry.domain: read_state(entry, backbone) for entry in self.entries}

    def describe(self) -> str:
        """A line about the model."""
        backbone = self.load()
        numbers = sum(parameter.numel() for parameter in backbone.model.parameters())
        groups = self.entries[0].manifest.groups
        experts = "; ".join(f"{name} K = {g.experts}, r = {g.rank}" for name, g in sorted(groups.items()))
        return (
            f"backbone {backbone.name}, {numbers / 1e6:.1f} million parameters, float32; "
            f"adapters for {', '.join(self.domains)} ({experts})"
        )


def prepare(ref: str, store: Path | None, clips_per_domain: int, scratch: Path) -> Subject:
    """Find backbone and adapters, and render the clips.

    Raises:
        NothingToMeasure: a domain of the demo world has no adapter for this backbone.
        BackboneNotFound, BackboneRefused: there is no such backbone.
    """
    _, folder = find_backbone(ref, store=store)
    registry = AdapterRegistry(adapter_roots(store), backbone_fingerprint=checkpoint_fingerprint(folder))
    missing = sorted(set(DOMAINS) - set(registry.domains()))
    if missing:
        raise NothingToMeasure(
            f"{ref} has no adapter for {', '.join(missing)}; `make demo-experts` makes them"
        )
    entries = tuple(registry.latest(domain) for domain in DOMAINS)
    clips = tuple(_render(scratch / "clips", clips_per_domain))
    return Subject(folder.resolve(), store, clips, entries, scratch)


def read_state(entry: AdapterEntry, backbone: Backbone) -> AdapterState:
    """One adapter from disk, verified as the worker verifies it."""
    loaded = load_adapter(
        entry, backbone_fingerprint=backbone.fingerprint, module_shapes=backbone.module_shapes
    )
    return adapter_state(loaded)


def _render(folder: Path, per_domain: int) -> Iterator[ClipFile]:
    """`per_domain` clips of each domain, the domains in turns."""
    folder.mkdir(parents=True)
    for index in range(FIRST_CLIP, FIRST_CLIP + per_domain):
        for domain in DOMAINS:
            path = folder / f"{domain}-{index}.mp4"
            write_mp4(make_clip(domain, index, "test"), path)
            yield ClipFile(domain, path)
