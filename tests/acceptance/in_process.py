"""The worker's engine in this process, where tokens can be counted and adapters swapped by hand."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from milora import AdapterBank, AdapterState, MiloraModel, inject
from model_store.adapters import load_adapter
from model_store.backbone import Backbone
from model_store.registry import AdapterRegistry
from workers.decode import decode
from workers.expert_room import adapter_state, room_for
from workers.prompt import Prompt, PromptBuilder


@dataclass(frozen=True)
class Bench:
    """Experts on the backbone, the bank of their slots, and every shipped adapter ready for it."""

    experts: MiloraModel
    bank: AdapterBank
    states: dict[str, AdapterState]


@contextmanager
def bench(backbone: Backbone, registry: AdapterRegistry, *, slots: int) -> Iterator[Bench]:
    """Put room for the shipped adapters beside the backbone, as a worker does, for the block."""
    entries = registry.entries()
    states = {
        entry.domain: adapter_state(load_adapter(entry, backbone_fingerprint=backbone.fingerprint))
        for entry in entries
    }
    experts = inject(backbone.model, room_for([entry.manifest for entry in entries]), slots=slots)
    try:
        yield Bench(experts, AdapterBank(experts), states)
    finally:
        experts.remove()


def prompt_of(backbone: Backbone, video: Path) -> Prompt:
    """What the worker makes of a video file."""
    builder = PromptBuilder(backbone.processor, backbone.manifest)
    return builder.build(decode(video, builder.frame_plan()), None)
