"""The safetensors files of a checkpoint folder as one set of named tensors. No torch here.

A checkpoint is `model.safetensors`, or shards named by `model.safetensors.index.json`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pydantic_core import from_json

from model_store.errors import DamagedFile
from model_store.files import read_bytes
from model_store.tensor_file import TensorSpan, read_spans, tensor_chunks

SINGLE_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
MAX_INDEX_BYTES = 64 * 2**20
PICKLED_PATTERNS = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")

Progress = Callable[[int, int], None]
"""Called with (bytes done, bytes in all)."""


@dataclass(frozen=True)
class StoredTensor:
    """One tensor of a checkpoint and the file that holds it."""

    path: Path
    span: TensorSpan

    @property
    def name(self) -> str:
        return self.span.name


def checkpoint_tensors(folder: Path) -> dict[str, StoredTensor]:
    """Every tensor of a checkpoint folder by name. Links are followed: a hub snapshot is made of them.

    Raises:
        DamagedFile: there are no safetensors, a shard is missing, or shards and index disagree.
    """
    tensors: dict[str, StoredTensor] = {}
    for path in weight_files(folder):
        for span in read_spans(path, follow_links=True):
            if span.name in tensors:
                raise DamagedFile(path, f"{span.name} is also in {tensors[span.name].path.name}")
            tensors[span.name] = StoredTensor(path, span)
    if (folder / INDEX_FILE).exists() and not (folder / SINGLE_FILE).exists():
        _check_index(folder, tensors)
    return tensors


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files that make up a checkpoint.

    Raises:
        DamagedFile: there are none; pickled weights are named as what they are.
    """
    if (folder / SINGLE_FILE).exists():
        return [folder / SINGLE_FILE]
    if (folder / INDEX_FILE).exists():
        return [folder / name for name in sorted(set(_read_index(folder / INDEX_FILE).values()))]
    pickled = sorted(path.name for pattern in PICKLED_PATTERNS for path in folder.glob(pattern))
    if pickled:
        raise DamagedFile(
            folder,
            f"holds pickled weights ({pickled[0]}) and no {SINGLE_FILE}; only safetensors is read, because "
            "unpickling runs whatever code the file holds",
        )
    raise DamagedFile(folder, f"holds neither {SINGLE_FILE} nor {INDEX_FILE}")


def write_index(path: Path, weight_map: dict[str, str], total_size: int) -> None:
    """Write `model.safetensors.index.json` as transformers reads it."""
    index = {"metadata": {"total_size": total_size}, "weight_map": dict(sorted(weight_map.items()))}
    path.write_text(json.dumps(index, indent=2) + "\n")


def checkpoint_fingerprint(folder: Path, *, progress: Progress | None = None) -> str:
    """sha256 over the sorted tensors of a checkpoint: name, dtype, shape and bytes of each, in hex.

    Independent of how the tensors are spread over shards and of the headers' order.

    Raises:
        DamagedFile: see :func:`checkpoint_tensors`.
    """
    tensors = checkpoint_tensors(folder)
    total = sum(tensor.span.size for tensor in tensors.values())
    digest = hashlib.sha256()
    done = 0
    for name, tensor in sorted(tensors.items()):
        digest.update(tensor_label(name, tensor.span.dtype, tensor.span.shape))
        for chunk in tensor_chunks(tensor.path, tensor.span, follow_links=True):
            digest.update(chunk)
            done += len(chunk)
            if progress is not None:
                progress(done, total)
    return digest.hexdigest()


def tensor_label(name: str, dtype: str, shape: tuple[int, ...]) -> bytes:
    """What is hashed before a tensor's bytes, so that no two checkpoints share a stream of bytes."""
    return json.dumps([name, dtype, list(shape)], separators=(",", ":")).encode() + b"\n"


def _read_index(path: Path) -> dict[str, str]:
    try:
        index = from_json(read_bytes(path, limit=MAX_INDEX_BYTES, follow_links=True))
    except ValueError as error:
        raise DamagedFile(path, f"is not JSON ({error})") from error
    weight_map = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(weight_map, dict) or not weight_map:
        raise DamagedFile(path, "has no weight_map")
    for name, file in weight_map.items():
        if not isinstance(file, str) or Path(file).name != file or not file.endswith(".safetensors"):
            raise DamagedFile(
                path, f"places {name} in {file!r}, which is not a safetensors file of the folder"
            )
    return weight_map


def _check_index(folder: Path, tensors: dict[str, StoredTensor]) -> None:
    weight_map = _read_index(folder / INDEX_FILE)
    placed = {name: tensor.path.name for name, tensor in tensors.items()}
    if wrong := sorted(
        name for name in set(weight_map) | set(placed) if weight_map.get(name) != placed.get(name)
    ):
        raise DamagedFile(folder / INDEX_FILE, f"and the shards disagree on {', '.join(wrong[:10])}")
