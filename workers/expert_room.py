"""How much room the injected experts need: which layers, how many experts, of which rank."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from milora import (
    GROUPS,
    VIDEO_LLAMA_3_SPATIAL,
    VIDEO_LLAMA_3_TEMPORAL,
    AdapterState,
    GroupConfig,
    GroupName,
    MiloraConfig,
    MiloraError,
    from_peft,
    inject,
)
from model_store.adapters import LoadedAdapter, load_adapter
from model_store.backbone import Backbone
from model_store.errors import AdapterRefused
from model_store.manifest import AdapterManifest, GroupManifest
from model_store.registry import AdapterEntry, AdapterRegistry
from workers.token_step import SITES

log = logging.getLogger("visum.adapters")

_DEFAULT_TARGETS = {"temporal": VIDEO_LLAMA_3_TEMPORAL, "spatial": VIDEO_LLAMA_3_SPATIAL}
LANGUAGE_MODEL = "model.language_model."
_VISION = ("model.vision_model.", "model.projector.")
_DEFAULT_EXPERTS = 4
_DEFAULT_RANK = 8


@dataclass(frozen=True)
class Room:
    """What the layers are made for: `slots` resident adapters, each within `config`."""

    config: MiloraConfig
    slots: int


def room_for(manifests: Sequence[AdapterManifest], *, experts: int = 0, rank: int = 0) -> MiloraConfig:
    """A config that every one of these adapters fits into, and at least `experts` of `rank`.

    The layers that VideoLLaMA3 is adapted at by default are always among the targets, so that a domain
    published later finds them; without any adapter the room is for 4 experts of rank 8.
    """
    configs = {group: _group_room(group, manifests, experts, rank) for group in GROUPS}
    return MiloraConfig(**configs)


def room_for_sound(
    registry: AdapterRegistry, backbone: Backbone, *, slots: int, budget: int, experts: int = 0, rank: int = 0
) -> Room:
    """Room for every adapter of the store that really fits the backbone; the others are refused by name.

    A manifest that asks for more than those before it is taken at its word only when its files bear it out and
    the layers that it names can have experts: one bad adapter must not keep a worker from starting. Nor is there
    room for one that makes all `slots` take more than `budget` bytes: everybody's steps would pay for it. Where what
    the settings ask for takes more, there are fewer slots.
    """
    sound: list[AdapterManifest] = []
    room = room_for(sound, experts=experts, rank=rank)
    for entry in registry.entries():
        wanted = room_for([*sound, entry.manifest], experts=experts, rank=rank)
        misfit = _misfit(entry, backbone, wanted, slots, budget) if wanted != room else None
        if misfit is not None:
            log.error("%s", registry.refuse(entry, misfit))
            continue
        sound.append(entry.manifest)
        room = wanted
    fitting = max(1, budget // _slot_bytes(backbone, room))
    if fitting < slots:
        log.warning("%d MiB hold %d adapters at once, not %d", budget >> 20, fitting, slots)
    return Room(room, min(slots, fitting))


def servable(target: str) -> bool:
    """Whether the engine has a place for experts of this module: anything in the vision tower and the projector, in the
    language model the linear layers that its decode step writes out."""
    if target.startswith(LANGUAGE_MODEL):
        return target.endswith(
            tuple(f".{part}.{name}" for part, blocks in SITES for block in blocks for name in block)
        )
    return target.startswith(_VISION)


def _misfit(
    entry: AdapterEntry, backbone: Backbone, room: MiloraConfig, slots: int, budget: int
) -> str | None:
    """Why an adapter can't be given this room, or None."""
    targets = [target for group in entry.manifest.groups.values() for target in group.targets]
    strange = [target for target in targets if not servable(target)]
    if strange:
        return f"it adapts {strange[0]}, where no experts can be served"
    try:
        load_adapter(entry, backbone_fingerprint=backbone.fingerprint, module_shapes=backbone.module_shapes)
        each = _slot_bytes(backbone, room)
    except AdapterRefused as refusal:
        return refusal.reason
    except MiloraError as mismatch:
        return f"it does not fit the worker: {mismatch}"
    if each * slots > budget:
        widest = max(group.experts * group.rank for group in entry.manifest.groups.values())
        return (
            f"its experts, of rank {widest} together, would make each of {slots} slots {each / 2**20:.1f} MiB large, "
            f"and {budget / 2**20:.1f} MiB are for all"
        )
    return None


def _slot_bytes(backbone: Backbone, room: MiloraConfig) -> int:
    """What one slot of this room takes beside the backbone's layers."""
    handle = inject(backbone.model, room, slots=2)  # two: with one, fresh experts would be drawn
    try:
        return sum(tensor.nbytes for tensor in handle.parameters()) // 2
    finally:
        handle.remove()


def _group_room(
    group: GroupName, manifests: Sequence[AdapterManifest], experts: int, rank: int
) -> GroupConfig:
    found: list[GroupManifest] = [m.groups[group] for m in manifests if group in m.groups]
    targets = set(_DEFAULT_TARGETS[group]) | {target for part in found for target in part.targets}
    most = max([experts, *(part.experts for part in found)]) or _DEFAULT_EXPERTS
    total = max([most * rank, *(part.experts * part.rank for part in found)]) or most * _DEFAULT_RANK
    return GroupConfig(tuple(sorted(targets)), most, -(-total // most), lora_alpha=1.0)


def adapter_state(adapter: LoadedAdapter) -> AdapterState:
    """An adapter from disk in the form that the bank takes.

    Raises:
        StateMismatch: its parts disagree.
    """
    groups: dict[GroupName, GroupConfig] = {
        name: GroupConfig(
            tuple(group.targets),
            group.experts,
            group.rank,
            group.lora_alpha,
            temperature=group.temperature,
            top_k=group.top_k,
        )
        for name, group in adapter.manifest.groups.items()
    }
    return from_peft(adapter.config, adapter.tensors, adapter.gates, groups)
