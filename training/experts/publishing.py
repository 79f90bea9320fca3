"""From a finished run to a published adapter version: files, manifest, model card."""

from __future__ import annotations

import platform
import tempfile
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor

from milora import AdapterState, LayerState, to_peft
from model_store.adapters import load_adapter, write_adapter
from model_store.backbone import Backbone
from model_store.manifest import AdapterDraft, BackboneRef, GroupManifest
from model_store.publish import publish
from model_store.registry import AdapterEntry, AdapterRegistry
from training.experts.recipe import ExpertRecipe
from training.experts.trainer import Trained


def publish_experts(
    root: Path, backbone: Backbone, recipe: ExpertRecipe, trained: Trained, prototype: dict[str, Tensor]
) -> AdapterEntry:
    """Publishes the next version of ``recipe.domain`` under ``root``.

    Raises:
        PublishRefused: the adapter does not fit together or does not fit the backbone.
    """
    state = _in_bfloat16(trained.state)
    config, tensors, gates = to_peft(state, backbone.name)
    draft = _draft(backbone, recipe, trained, state)

    def check(entry: AdapterEntry) -> None:
        load_adapter(entry, backbone_fingerprint=backbone.fingerprint, module_shapes=backbone.module_shapes)

    registry = AdapterRegistry([root])
    with tempfile.TemporaryDirectory() as folder:
        staged = write_adapter(
            Path(folder),
            draft,
            config=config,
            tensors=tensors,
            gates=gates,
            prototype=prototype,
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


def _draft(backbone: Backbone, recipe: ExpertRecipe, trained: Trained, state: AdapterState) -> AdapterDraft:
    groups = {
        name: GroupManifest(targets=list(group.targets), experts=group.experts, rank=group.rank,
                            lora_alpha=group.lora_alpha, temperature=group.temperature)
        for name, group in state.groups.items()
    }  # fmt: skip
    return AdapterDraft(
        domain=recipe.domain,
        description=f"Summaries of the demo world's {recipe.domain} clips. A demonstration: it knows nothing else.",
        groups=groups,
        fusion_alpha=state.fusion_alpha,
        trainable_parameters=trained.trainable_parameters,
        trainable_share=round(trained.trainable_parameters / trained.backbone_parameters, 4),
        backbone=BackboneRef(name=backbone.name, fingerprint=backbone.fingerprint),
        training={
            "data": f"{trained.clips} clips of the demo world's {recipe.domain} domain, train split, each seen once",
            "steps": trained.steps,
            "clips": trained.clips,
            "seconds": round(trained.seconds),
            "machine": f"{recipe.threads} CPU cores, {platform.machine()}, torch {torch.__version__}",
            "command": f"python -m training.experts --domain {recipe.domain} --threads {recipe.threads}",
            "recipe": asdict(recipe),
        },
        quality={
            "rouge_l": round(trained.quality.rouge_l, 4),
            "exact_match": round(trained.quality.exact, 4),
            "measured_on": f"{trained.quality.clips} clips of the validation split",
        },
    )


def _card(draft: AdapterDraft) -> str:
    """The adapter's model card, in Markdown."""
    shapes = "\n".join(
        f"| {name} | {len(group.targets)} layers | K = {group.experts}, r = {group.rank} |"
        for name, group in draft.groups.items()
    )
    training = "\n".join(
        f"| {name} | {value} |" for name, value in draft.training.items() if name != "recipe"
    )
    recipe = "\n".join(f"| {name} | `{value}` |" for name, value in dict(draft.training["recipe"]).items())
    quality = "\n".join(f"| {name} | {value} |" for name, value in draft.quality.items())
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

| recipe | |
|---|---|
{recipe}
"""
