"""From a finished run to a published adapter version: files, manifest, model card."""

from __future__ import annotations

import json
import platform
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from milora import AdapterState, LayerState, to_peft
from model_store.adapters import load_adapter, write_adapter
from model_store.backbone import Backbone
from model_store.manifest import AdapterDraft, BackboneRef, GroupManifest
from model_store.publish import publish
from model_store.registry import AdapterEntry, AdapterRegistry
from training.trainer.config import TrainConfig
from training.trainer.job import Outcome


@dataclass(frozen=True)
class About:
    """What the manifest says of where an adapter comes from."""

    domain: str
    description: str
    data: str
    command: str


def publish_adapter(
    registry: AdapterRegistry,
    root: Path,
    backbone: Backbone,
    about: About,
    config: TrainConfig,
    state: AdapterState,
    outcome: Outcome,
    mark: Mapping[str, Tensor] | None,
) -> AdapterEntry:
    """Publishes the domain's next version under ``root``; nothing is visible before all of it is.

    Raises:
        PublishRefused: the adapter does not fit together or does not fit the backbone.
    """
    state = _in_bfloat16(state)
    peft_config, tensors, gates = to_peft(state, backbone.name)
    draft = _draft(backbone, about, config, state, outcome)

    def check(entry: AdapterEntry) -> None:
        load_adapter(entry, backbone_fingerprint=backbone.fingerprint, module_shapes=backbone.module_shapes)

    with tempfile.TemporaryDirectory() as folder:
        staged = write_adapter(
            Path(folder),
            draft,
            config=peft_config,
            tensors=tensors,
            gates=gates,
            prototype=None if mark is None else dict(mark),
            card=_card(draft),
        )
        return publish(registry, root, staged, check=check)


def _in_bfloat16(state: AdapterState) -> AdapterState:
    """A and B as they are stored; gates stay in float32."""
    layers = {
        name: LayerState(layer.A.bfloat16(), layer.B.bfloat16(), layer.G, layer.b)
        for name, layer in state.layers.items()
    }
    return AdapterState(state.groups, layers, a=state.a)


def _draft(
    backbone: Backbone, about: About, config: TrainConfig, state: AdapterState, outcome: Outcome
) -> AdapterDraft:
    groups = {
        name: GroupManifest(targets=list(group.targets), experts=group.experts, rank=group.rank,
                            lora_alpha=group.lora_alpha, temperature=group.temperature, top_k=group.top_k)
        for name, group in state.groups.items()
    }  # fmt: skip
    frozen_parameters = sum(parameter.numel() for parameter in backbone.model.parameters())
    threads = torch.get_num_threads()
    device = "CPU threads" if backbone.device.type == "cpu" else torch.cuda.get_device_name(backbone.device)
    return AdapterDraft(
        domain=about.domain,
        description=about.description,
        groups=groups,
        fusion_alpha=state.fusion_alpha,
        trainable_parameters=outcome.trainable,
        trainable_share=round(outcome.trainable / frozen_parameters, 4),
        backbone=BackboneRef(name=backbone.name, fingerprint=backbone.fingerprint),
        training={
            "data": about.data,
            "steps": outcome.steps,
            "best_step": outcome.best_step,
            "clips": outcome.clips,
            "seconds": round(outcome.seconds),
            "machine": f"{threads} {device}, {platform.machine()}, torch {torch.__version__}",
            "command": about.command,
            "signatures": {finding.code: finding.seen for finding in outcome.findings},
            "recipe": json.loads(json.dumps(config.learned())),
        },
        quality=_measured(outcome),
    )


def _measured(outcome: Outcome) -> dict[str, Any]:
    quality = outcome.quality
    if quality is None:
        return {}
    measured: dict[str, Any] = {
        "rouge_l": round(quality.rouge_l, 4),
        "exact_match": round(quality.exact, 4),
        "measured_on": f"{quality.clips} clips of the validation split",
    }
    if quality.facts is not None:
        measured["fact_f1"] = round(quality.facts.f1, 4)
    if outcome.frozen is not None:
        measured["frozen_rouge_l"] = round(outcome.frozen.rouge_l, 4)
    return measured


def _card(draft: AdapterDraft) -> str:
    """The adapter's model card, in Markdown."""
    shapes = "\n".join(
        f"| {name} | {len(group.targets)} layers | K = {group.experts}, r = {group.rank} |"
        for name, group in draft.groups.items()
    )
    training = "\n".join(
        f"| {name} | {value} |"
        for name, value in draft.training.items()
        if name not in ("recipe", "signatures")
    )
    recipe = "\n".join(f"| {name} | `{value}` |" for name, value in dict(draft.training["recipe"]).items())
    quality = "\n".join(f"| {name} | {value} |" for name, value in draft.quality.items())
    seen = "\n".join(f"- {text}" for text in dict(draft.training["signatures"]).values())
    return f"""# {draft.domain}: MiLoRA experts for {draft.backbone.name}

{draft.description}

| group | layers | experts |
|---|---|---|
{shapes}

Fusion alpha {draft.fusion_alpha:.3f}; {draft.trainable_parameters:,} trained parameters, {draft.trainable_share:.1%}
of the backbone's. As a plain `peft` LoRA this folder equals the mixture with uniform gates.

| measured | |
|---|---|
{quality}

| training | |
|---|---|
{training}
{f"{chr(10)}What the training watched and found:{chr(10)}{chr(10)}{seen}{chr(10)}" if seen else ""}
| recipe | |
|---|---|
{recipe}
"""
