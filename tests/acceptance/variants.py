"""Adapters made of a shipped one: with a single expert, with twice as many, damaged, foreign, misfitting."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import safetensors.torch
import torch

from milora import AdapterState, GroupConfig, LayerState, to_peft
from model_store.adapters import load_adapter, tensor_bytes
from model_store.manifest import (
    CONFIG_FILE,
    GATES_FILE,
    ROUTER_FILE,
    WEIGHTS_FILE,
    AdapterDraft,
    GroupManifest,
)
from model_store.publish import publish
from model_store.registry import AdapterEntry, AdapterRegistry
from workers.expert_room import adapter_state

Tensors = dict[str, torch.Tensor]


def files_of(entry: AdapterEntry) -> dict[str, bytes]:
    """A published adapter's files, but the mark that `auto` knows its domain by."""
    return {name: (entry.path / name).read_bytes() for name in entry.manifest.files if name != ROUTER_FILE}


def publish_files(store: Path, files: dict[str, bytes], draft: AdapterDraft, *known: Path) -> AdapterEntry:
    """Publish files in a store, whose versions go on from those of the `known` roots."""
    root = store / "adapters"
    return publish(AdapterRegistry([*known, root]), root, files, draft)


def publish_copy(store: Path, entry: AdapterEntry, domain: str) -> AdapterEntry:
    """The same experts under another name."""
    return publish_files(store, files_of(entry), entry.manifest.draft().model_copy(update={"domain": domain}))


def publish_first_expert(store: Path, entry: AdapterEntry, domain: str) -> AdapterEntry:
    """The first expert of each layer, alone."""

    def first(layer: LayerState, rank: int) -> LayerState:
        return LayerState(layer.A[:rank], layer.B[:, :rank], layer.G[:1], layer.b[:1])

    return _publish_state(
        store, entry, domain, _resized(entry, lambda group: replace(group, experts=1), first)
    )


def publish_doubled(store: Path, entry: AdapterEntry, domain: str) -> AdapterEntry:
    """Every expert twice."""

    def twice(layer: LayerState, rank: int) -> LayerState:
        return LayerState(
            torch.cat([layer.A, layer.A]),
            torch.cat([layer.B, layer.B], 1),
            torch.cat([layer.G, layer.G]),
            torch.cat([layer.b, layer.b]),
        )

    state = _resized(entry, lambda group: replace(group, experts=2 * group.experts), twice)
    return _publish_state(store, entry, domain, state)


def publish_corrupt(store: Path, entry: AdapterEntry, domain: str) -> AdapterEntry:
    """One byte of the experts is not what was published."""
    published = publish_copy(store, entry, domain)
    weights = published.path / WEIGHTS_FILE
    weights.chmod(0o644)
    raw = bytearray(weights.read_bytes())
    raw[-1] ^= 0xFF
    weights.write_bytes(raw)
    return published


def publish_foreign(store: Path, entry: AdapterEntry, domain: str) -> AdapterEntry:
    """Trained on a backbone that is not the one in service."""
    draft = entry.manifest.draft()
    other = draft.backbone.model_copy(update={"name": "another", "fingerprint": "ab" * 32})
    return publish_files(
        store, files_of(entry), draft.model_copy(update={"domain": domain, "backbone": other})
    )


def publish_misshapen(store: Path, entry: AdapterEntry, domain: str) -> AdapterEntry:
    """One layer is narrower than the backbone's; files, hashes and manifest agree with each other."""
    name = entry.manifest.groups["temporal"].targets[0]

    def narrower(tensors: Tensors) -> Tensors:
        short = {f"base_model.model.{name}.lora_A.weight", f"{name}.G"}
        return {key: value[:, :-1].contiguous() if key in short else value for key, value in tensors.items()}

    files = files_of(entry)
    for part in (WEIGHTS_FILE, GATES_FILE):
        files[part] = tensor_bytes(narrower(safetensors.torch.load(files[part])))
    return publish_files(store, files, entry.manifest.draft().model_copy(update={"domain": domain}))


def publish_misplaced(store: Path, entry: AdapterEntry, domain: str) -> AdapterEntry:
    """Made for a layer that the backbone does not have."""
    name = entry.manifest.groups["temporal"].targets[0]
    elsewhere = name.replace("layers.0.", "layers.999.")
    files = {part: _renamed(raw, name, elsewhere) for part, raw in files_of(entry).items()}
    draft = AdapterDraft.model_validate_json(
        entry.manifest.draft()
        .model_copy(update={"domain": domain})
        .model_dump_json()
        .replace(name, elsewhere)
    )
    return publish_files(store, files, draft)


def _renamed(raw: bytes, name: str, other: str) -> bytes:
    """A file with every mention of a layer changed."""
    try:
        tensors = safetensors.torch.load(raw)
    except safetensors.SafetensorError:
        return raw.replace(name.encode(), other.encode())
    return tensor_bytes({key.replace(name, other): value for key, value in tensors.items()})


def _resized(
    entry: AdapterEntry,
    group: Callable[[GroupConfig], GroupConfig],
    layer: Callable[[LayerState, int], LayerState],
) -> AdapterState:
    state = adapter_state(load_adapter(entry))
    groups = {name: group(config) for name, config in state.groups.items()}
    rank = {name: groups[owner].rank for name, owner in state.group_of.items()}
    layers = {name: layer(tensors, rank[name]) for name, tensors in state.layers.items()}
    return AdapterState(groups, layers, a=state.a)


def _publish_state(store: Path, entry: AdapterEntry, domain: str, state: AdapterState) -> AdapterEntry:
    config, tensors, gates = to_peft(state, entry.manifest.backbone.name)
    groups = {
        name: GroupManifest(
            targets=list(group.targets), experts=group.experts, rank=group.rank, lora_alpha=group.lora_alpha
        )
        for name, group in state.groups.items()
    }
    files = {
        CONFIG_FILE: json.dumps(config).encode(),
        WEIGHTS_FILE: tensor_bytes(tensors),
        GATES_FILE: tensor_bytes(gates),
    }
    return publish_files(
        store, files, entry.manifest.draft().model_copy(update={"domain": domain, "groups": groups})
    )
