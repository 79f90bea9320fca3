"""How the shipped adapters are trained: the trainer's defaults over fresh clips of the demo world, each seen once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from training.backbone.recipe import INSTRUCTIONS
from training.trainer.config import TrainConfig, load_config
from training.trainer.publishing import About
from training.trainer.run import Plan
from training.trainer.world_samples import WorldSamples
from training.world import DOMAINS

CLIPS = 12_000
_WORLD = {
    "instructions": INSTRUCTIONS,
    "schedule.tokens_per_batch": 4000,
    "watch.evaluate_every": 200,
}


def world_config(path: Path | None = None, **changes: Any) -> TrainConfig:
    """The recipe of the demo world's experts, or a file's in its place, with changes by dotted keys.

    Raises:
        InvalidConfig: see `load_config`.
    """
    defaults = {} if path is not None else _WORLD
    return load_config(
        path, **{**defaults, **{key: value for key, value in changes.items() if value is not None}}
    )


def world_plan(
    domain: str,
    config: TrainConfig,
    *,
    backbone: str,
    folder: Path,
    roots: tuple[Path, ...],
    command: str,
    clips: int = CLIPS,
    **options: Any,
) -> Plan:
    """The training of a domain of the demo world.

    Raises:
        ValueError: there is no such domain.
    """
    if domain not in DOMAINS:
        raise ValueError(f"the demo world has no domain '{domain}': one of {', '.join(DOMAINS)}")
    about = About(
        domain,
        f"Summaries of the demo world's {domain} clips. A demonstration: it knows nothing else.",
        f"{clips} clips of the demo world's {domain} domain, train split",
        command,
    )
    validation = WorldSamples(domain, "validation", config.watch.validation_clips)
    train = WorldSamples(domain, "train", clips)
    return Plan(about, backbone, config, train, validation, folder, roots, **options)
