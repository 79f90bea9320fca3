"""How much room the injected experts need: which layers, how many experts, of which rank."""

from collections.abc import Sequence

from milora import (
    GROUPS,
    VIDEO_LLAMA_3_SPATIAL,
    VIDEO_LLAMA_3_TEMPORAL,
    AdapterState,
    GroupConfig,
    GroupName,
    MiloraConfig,
    from_peft,
)
from model_store.adapters import LoadedAdapter
from model_store.manifest import AdapterManifest, GroupManifest

_DEFAULT_TARGETS = {"temporal": VIDEO_LLAMA_3_TEMPORAL, "spatial": VIDEO_LLAMA_3_SPATIAL}
_DEFAULT_EXPERTS = 4
_DEFAULT_RANK = 8


def room_for(manifests: Sequence[AdapterManifest], *, experts: int = 0, rank: int = 0) -> MiloraConfig:
    """A config that every one of these adapters fits into, and at least `experts` of `rank`.

    The layers that VideoLLaMA3 is adapted at by default are always among the targets, so that a domain
    published later finds them; without any adapter the room is for 4 experts of rank 8.
    """
    configs = {group: _group_room(group, manifests, experts, rank) for group in GROUPS}
    return MiloraConfig(**configs)


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
            tuple(group.targets), group.experts, group.rank, group.lora_alpha, temperature=group.temperature
        )
        for name, group in adapter.manifest.groups.items()
    }
    return from_peft(adapter.config, adapter.tensors, adapter.gates, groups)
