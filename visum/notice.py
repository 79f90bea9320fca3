"""What the model in service says of itself, for the log at start and the demo. No torch."""

from __future__ import annotations

from pathlib import Path

from model_store.errors import DamagedFile
from model_store.manifest import BACKBONE_FILE, BackboneManifest, read_manifest
from visum.store import backbone_folder

POINT_ELSEWHERE = (
    "For real video set VISUM_BACKBONE to a VideoLLaMA3 checkpoint (folder or hub id): see the README."
)


def backbone_manifest(ref: str, store: Path) -> BackboneManifest | None:
    """The manifest of a backbone that lies on this machine; None for a hub id or a stock checkpoint."""
    folder = backbone_folder(ref, store)
    if folder is None or not (folder / BACKBONE_FILE).exists():
        return None
    try:
        return read_manifest(folder / BACKBONE_FILE, BackboneManifest)
    except DamagedFile:  # the worker refuses it and says why
        return None


def backbone_notice(ref: str, store: Path) -> list[str]:
    """The lines to say at start: the name of the backbone, its own notice, and how to leave the demo."""
    manifest = backbone_manifest(ref, store)
    if manifest is None:
        return [f"backbone {ref}"]
    lines = [f"backbone {manifest.name}" + (f": {manifest.notice}" if manifest.notice else "")]
    return [*lines, POINT_ELSEWHERE] if manifest.notice else lines
