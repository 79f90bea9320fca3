"""Checkpoints: tensors as safetensors and a place as JSON, one folder a step, each whole or not there at all."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from model_store.files import sync_folder, write_durably
from training.trainer.errors import RunExists, WriteFailed

_TENSORS, _PLACE, _PREFIX = "state.safetensors", "place.json", "step-"
_NAME = re.compile(_PREFIX + r"\d{8}")


@contextmanager
def writing(what: str, checkpoint: Path | None) -> Iterator[None]:
    """Turns a disk's refusal into a `WriteFailed` that names the file and the checkpoint that is left."""
    try:
        yield
    except OSError as error:
        left = f"the last good checkpoint is {checkpoint}" if checkpoint else "there was no checkpoint yet"
        reason = f"{what} could not be written: {error.strerror or error}; {left}"
        raise WriteFailed(f"{reason}. Make room, then go on with --resume") from error


class Checkpoints:
    """The checkpoints of one run: the two newest. What the newest one's weights are worth, the next step shows."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def newest(self) -> Path | None:
        """The last checkpoint, None where there is none."""
        found = self._all()
        return found[-1] if found else None

    def discard(self, step: int) -> None:
        """Remove the checkpoint of a step, if there is one: its weights turned out to be no good."""
        shutil.rmtree(self._of(step), ignore_errors=True)

    def _all(self) -> list[Path]:
        """Oldest first."""
        return sorted(path for path in self.folder.glob(f"{_PREFIX}*") if _NAME.fullmatch(path.name))

    def _of(self, step: int) -> Path:
        return self.folder / f"{_PREFIX}{step:08d}"

    def write(self, step: int, place: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
        """Write the checkpoint of a step.

        Raises:
            WriteFailed: the disk is full; the checkpoint before is still there.
        """
        last = self.newest()
        target = self._of(step)
        partial = self.folder / f".writing-{os.getpid()}"
        contents = safetensors.torch.save(
            {name: t.detach().cpu().contiguous() for name, t in tensors.items()}
        )
        try:
            with writing(f"the checkpoint of step {step} in {self.folder}", last):
                shutil.rmtree(partial, ignore_errors=True)
                partial.mkdir(parents=True)
                write_durably(partial / _TENSORS, contents)
                write_durably(partial / _PLACE, (json.dumps(place, indent=2) + "\n").encode())
                sync_folder(partial)
                if target.exists():
                    shutil.rmtree(target)
                partial.rename(target)
                sync_folder(self.folder)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        for path in self._all()[:-2]:
            shutil.rmtree(path, ignore_errors=True)

    def read(self) -> tuple[dict[str, Any], dict[str, Tensor]] | None:
        """Place and tensors of the newest checkpoint.

        Raises:
            RunExists: it cannot be read.
        """
        newest = self.newest()
        if newest is None:
            return None
        try:
            place = json.loads((newest / _PLACE).read_text())
            return place, safetensors.torch.load((newest / _TENSORS).read_bytes())
        except (OSError, ValueError, SafetensorError) as error:
            raise RunExists(
                f"the checkpoint {newest} cannot be read: {error}. Start again with --fresh"
            ) from error
