"""Adapters as tensors: what serving loads and what training stages. Needs torch; only safetensors is read.

A file is read once: the bytes that were hashed are the bytes that are parsed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import safetensors.torch
from pydantic_core import from_json
from safetensors import SafetensorError

from model_store.adapter_check import ModuleShapes, Tensors, find_problem, prototype_problem
from model_store.errors import AdapterRefused, DamagedFile, PublishRefused
from model_store.files import read_bytes, write_durably
from model_store.manifest import (
    CARD_FILE,
    CONFIG_FILE,
    DRAFT_FILE,
    GATES_FILE,
    ROUTER_FILE,
    WEIGHTS_FILE,
    AdapterDraft,
    AdapterManifest,
    manifest_bytes,
)
from model_store.registry import AdapterEntry, check_listing, foreign_backbone
from model_store.tensor_file import read_spans

MAX_WEIGHT_BYTES = 2 * 2**30
MAX_CONFIG_BYTES = 16 * 2**20


@dataclass(frozen=True)
class LoadedAdapter:
    """One verified adapter in memory, on the CPU, in the dtype it is stored in.

    tensors: `base_model.model.<module>.lora_A.weight` (K·r, in…) and `….lora_B.weight` (out, K·r…).
    gates: `<module>.G` (K, in) and `<module>.b` (K,) of every module's gate, and the fusion scalar `a` ().
    prototype: `mean` (D,) and `covariance` (D, D) of the domain's pooled vision features, or None.
    """

    manifest: AdapterManifest
    config: dict[str, object]
    tensors: Tensors
    gates: Tensors
    prototype: Tensors | None

    @property
    def key(self) -> tuple[str, int, str]:
        """(domain, version, sha256 of the weights): what a resident adapter is known by."""
        return (self.manifest.domain, self.manifest.version, self.manifest.files[WEIGHTS_FILE])


def load_adapter(
    entry: AdapterEntry,
    *,
    backbone_fingerprint: str | None = None,
    module_shapes: ModuleShapes | None = None,
) -> LoadedAdapter:
    """Read an adapter and verify everything that can be verified without running it.

    Args:
        entry: from the registry.
        backbone_fingerprint: of the backbone in service; None skips the check.
        module_shapes: weight shape (out, in…) of every module of that backbone; None skips the check.

    Raises:
        AdapterRefused: a wrong hash, backbone, key, shape or dtype, or a number that is not finite.
    """
    manifest = entry.manifest
    try:
        check_listing(entry.path, manifest)
        if backbone_fingerprint is not None and manifest.backbone.fingerprint != backbone_fingerprint:
            raise AdapterRefused(*entry.key, foreign_backbone(manifest, backbone_fingerprint))
        config = _read_config(entry)
        tensors = _read_tensors(entry, WEIGHTS_FILE)
        gates = _read_tensors(entry, GATES_FILE)
        prototype = _read_tensors(entry, ROUTER_FILE) if ROUTER_FILE in manifest.files else None
        problem = find_problem(manifest, config, tensors, gates, prototype, module_shapes)
    except DamagedFile as error:
        raise AdapterRefused(*entry.key, str(error)) from error
    if problem is not None:
        raise AdapterRefused(*entry.key, problem)
    return LoadedAdapter(manifest, config, tensors, gates, prototype)


def load_prototype(entry: AdapterEntry) -> Tensors | None:
    """An adapter's recognition mark alone, verified by its hash: nothing else of it is read. None if it has none.

    Raises:
        AdapterRefused: it is missing, changed, or no mean and covariance.
    """
    if ROUTER_FILE not in entry.manifest.files:
        return None
    try:
        prototype = _read_tensors(entry, ROUTER_FILE)
    except DamagedFile as error:
        raise AdapterRefused(*entry.key, str(error)) from error
    if problem := prototype_problem(prototype):
        raise AdapterRefused(*entry.key, problem)
    return prototype


def write_adapter(
    folder: Path,
    draft: AdapterDraft,
    *,
    config: Mapping[str, object],
    tensors: Tensors,
    gates: Tensors,
    prototype: Tensors | None = None,
    card: str | None = None,
) -> Path:
    """Stage an adapter in a folder that `publish` takes; the counterpart of :func:`load_adapter`.

    Raises:
        PublishRefused: the parts do not fit the draft or each other.
    """
    if problem := find_problem(draft, dict(config), tensors, gates, prototype, None):
        raise PublishRefused(problem)
    folder.mkdir(parents=True, exist_ok=True)
    write_durably(folder / CONFIG_FILE, (json.dumps(dict(config), indent=2, sort_keys=True) + "\n").encode())
    parts = {WEIGHTS_FILE: tensors, GATES_FILE: gates, ROUTER_FILE: prototype}
    for name, part in parts.items():
        if part is not None:
            write_durably(folder / name, tensor_bytes(part))
    if card is not None:
        write_durably(folder / CARD_FILE, card.encode())
    write_durably(folder / DRAFT_FILE, manifest_bytes(draft))
    return folder


def tensor_bytes(tensors: Tensors) -> bytes:
    """The tensors as the bytes of a safetensors file, in the format plain `peft` and transformers read."""
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    return safetensors.torch.save(contiguous, metadata={"format": "pt"})


def read_prototype(path: Path, *, follow_links: bool = False) -> Tensors | None:
    """`router.safetensors` of a backbone folder, or None where there is none.

    Raises:
        DamagedFile: it is there but is not a mean and a covariance.
    """
    if not path.exists():
        return None
    read_spans(path, follow_links=follow_links)
    prototype = _parse(path, read_bytes(path, limit=MAX_WEIGHT_BYTES, follow_links=follow_links))
    if problem := prototype_problem(prototype):
        raise DamagedFile(path, problem)
    return prototype


def _read_verified(entry: AdapterEntry, name: str, limit: int) -> bytes:
    raw = read_bytes(entry.path / name, limit=limit)
    if sha256(raw).hexdigest() != entry.manifest.files[name]:
        raise DamagedFile(entry.path / name, "its sha256 is not the manifest's")
    return raw


def _read_config(entry: AdapterEntry) -> dict[str, object]:
    path = entry.path / CONFIG_FILE
    try:
        config = from_json(_read_verified(entry, CONFIG_FILE, MAX_CONFIG_BYTES), allow_inf_nan=False)
    except ValueError as error:
        raise DamagedFile(path, f"is not JSON ({error})") from error
    if not isinstance(config, dict):
        raise DamagedFile(path, "is not a JSON object")
    return config


def _read_tensors(entry: AdapterEntry, name: str) -> Tensors:
    path = entry.path / name
    read_spans(path)  # bounds the header before the file is taken into memory
    return _parse(path, _read_verified(entry, name, MAX_WEIGHT_BYTES))


def _parse(path: Path, raw: bytes) -> Tensors:
    try:
        return safetensors.torch.load(raw)
    except (SafetensorError, KeyError, ValueError) as error:
        raise DamagedFile(path, f"is not a safetensors file ({error})") from error
