"""Checkpoints that a run resumes from exactly: the optimizer's tensors and where in the data the run was."""

import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import Tensor


@dataclass
class Position:
    """Where a run is. Everything random follows from the recipe's seed and these numbers."""

    phase: str  # "dense", "captions", "done"
    shard: int = 0
    group: int = 0  # step within the shard
    step: int = 0  # step within the phase
    updates: int = 0  # of the optimizer in the phase; text-only steps count here alone
    clips: int = 0  # clips used in the phase
    seconds: float = 0.0  # training time of the phase
    total_seconds: float = 0.0  # of all phases
    caption_clips: int = 0  # clips used for captions so far


def write_checkpoint(folder: Path, position: Position, tensors: dict[str, Tensor]) -> None:
    """Replace the checkpoint in ``folder``; a crash leaves the old or the new one."""
    fresh, old = folder.with_suffix(".new"), folder.with_suffix(".old")
    for leftover in (fresh, old):
        shutil.rmtree(leftover, ignore_errors=True)
    fresh.mkdir(parents=True)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, fresh / "state.safetensors")
    (fresh / "position.json").write_text(json.dumps(asdict(position), indent=2))
    if folder.exists():
        folder.rename(old)
    fresh.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def read_checkpoint(folder: Path) -> tuple[Position, dict[str, Tensor]] | None:
    """The checkpoint in ``folder``, or None where there is none."""
    for place in (folder, folder.with_suffix(".old")):
        if (place / "position.json").is_file():
            position = Position(**json.loads((place / "position.json").read_text()))
            return position, load_file(place / "state.safetensors")
    return None
