"""Where the state of a machine lies by default. Gateway, workers and `visum serve` must agree on it."""

from __future__ import annotations

import os
from pathlib import Path


def default_data_dir() -> Path:
    """All state of this machine: the XDG data folder."""
    base = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(base) / "visum"


def blob_folder(data_dir: Path) -> Path:
    """The uploaded videos."""
    return data_dir / "blobs"


def store_folder(data_dir: Path) -> Path:
    """The adapters and backbones that are not shipped."""
    return data_dir / "models"
