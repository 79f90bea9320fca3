"""Where backbones and adapters lie: the shipped ones, and the store of VISUM_MODEL_STORE. No torch."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import model_store

SHIPPED = Path(model_store.__file__).parent / "shipped"


def adapter_roots(store: Path) -> tuple[Path, Path]:
    """The folders that adapters are looked for in, the shipped one first."""
    return SHIPPED / "adapters", store / "adapters"


def backbone_folders(store: Path) -> Iterator[Path]:
    """Every backbone on this machine by folder, the shipped ones first."""
    for root in (SHIPPED / "backbones", store / "backbones"):
        if root.is_dir():
            yield from sorted(folder for folder in root.iterdir() if (folder / "config.json").is_file())


def backbone_folder(ref: str, store: Path) -> Path | None:
    """The folder a reference means on this machine: a name in the store or a path; None for a hub id."""
    for folder in backbone_folders(store):
        if folder.name == ref:
            return folder
    path = Path(ref).expanduser()
    return path if path.is_dir() else None
