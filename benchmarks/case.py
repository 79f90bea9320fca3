"""One model in memory with eight domains' adapters and eight videos: what the comparisons of the engine run on."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, cycle, islice

import torch

from benchmarks.plan import Plan
from benchmarks.random_model import Shape, random_adapter, random_backbone
from benchmarks.subject import ClipFile, Subject
from milora import AdapterState, MiloraConfig, video_llama_3
from model_store.backbone import Backbone
from workers.decode import decode
from workers.expert_room import room_for
from workers.prompt import Prompt, PromptBuilder

EXPERTS, RANK, LORA_ALPHA = 4, 8, 16.0
"""K and r of the random adapters, as the shipped ones have them."""
DTYPES = {torch.float32: "fp32", torch.bfloat16: "bf16"}


@dataclass(frozen=True)
class Prompted:
    """One clip as the model reads it, and the domain whose adapter is to answer."""

    domain: str
    prompt: Prompt


@dataclass(frozen=True)
class Case:
    """`name` is how tables call the model; `adapters` are by domain and laid out as the worker keeps them."""

    name: str
    backbone: Backbone
    room: MiloraConfig
    adapters: Mapping[str, AdapterState]
    clips: tuple[Prompted, ...]

    @property
    def precision(self) -> str:
        return DTYPES[self.backbone.dtype]

    def twin(self) -> Backbone:
        """The same weights in modules of its own: what one arm hangs beside a layer does not slow another down."""
        model = self.backbone.model
        shared = {id(tensor): tensor for tensor in chain(model.parameters(), model.buffers())}
        return replace(self.backbone, model=copy.deepcopy(model, shared))

    def endless(self) -> Case:
        """The same model without a stop token: every answer is as long as it may be, whoever gives it."""
        self.backbone.model.generation_config.eos_token_id = None
        return self


def demo_case(subject: Subject, plan: Plan) -> Case:
    """The measured backbone in fp32 with its own adapters, under as many names as videos are in flight."""
    backbone = subject.load()
    states = subject.states(backbone)
    adapters = {
        domain if number < len(states) else f"{domain} again": states[domain]
        for number, domain in enumerate(islice(cycle(states), max(plan.in_flight, len(states))))
    }
    room = room_for([entry.manifest for entry in subject.entries])
    clips = islice(cycle(subject.clips), plan.in_flight)
    return Case("demo, fp32", backbone, room, _staged(adapters, backbone), _read(clips, adapters, backbone))


def random_case(
    subject: Subject, plan: Plan, shape: Shape, dtype: torch.dtype, *, device: str = "cpu", domains: int = 8
) -> Case:
    """A random model of this shape; the clips are the demo's, with few frames."""
    backbone = random_backbone(subject.load(), shape, dtype, device=device)
    room = video_llama_3(EXPERTS, RANK, LORA_ALPHA)
    adapters = {f"domain-{seed}": random_adapter(backbone, room, seed) for seed in range(1, domains + 1)}
    clips = islice(cycle(subject.clips), plan.in_flight)
    prompted = _read(clips, adapters, backbone, plan.random_frames) if shape.patch_size is None else ()
    name = f"{shape.name}, {DTYPES[dtype]}"
    return Case(name, backbone, room, _staged(adapters, backbone), prompted)


def _staged(adapters: Mapping[str, AdapterState], backbone: Backbone) -> dict[str, AdapterState]:
    pinned = backbone.device.type == "cuda"
    return {domain: state.staged(backbone.dtype, pinned=pinned) for domain, state in adapters.items()}


def _read(
    clips: Sequence[ClipFile], domains: Mapping[str, AdapterState], backbone: Backbone, frames: int = 0
) -> tuple[Prompted, ...]:
    """The clips as prompts, the first for the first domain and so on; at most `frames` of each, 0 for no limit."""
    builder = PromptBuilder(backbone.processor, backbone.manifest)
    plan = builder.frame_plan()
    if frames:
        plan = replace(plan, min_frames=min(plan.min_frames, frames), max_frames=frames)
    return tuple(
        Prompted(domain, builder.build(decode(clip.path, plan), None))
        for clip, domain in zip(clips, cycle(domains), strict=False)
    )
