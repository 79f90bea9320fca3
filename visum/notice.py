"""What the model in service says of itself, for the log at start and the demo. No torch."""

from __future__ import annotations

from pathlib import Path

from model_store.backbone_ref import backbone_names
from model_store.errors import DamagedFile
from model_store.manifest import BACKBONE_FILE, BackboneManifest, read_manifest

POINT_ELSEWHERE = "For real video point VISUM_BACKBONE at a VideoLLaMA3 checkpoint: the README says how."


def local_manifest(ref: str, store: Path) -> BackboneManifest | None:
    """The manifest of a backbone that lies on this machine; None for a hub id or a stock checkpoint."""
    path = backbone_names(store).get(ref, Path(ref).expanduser()) / BACKBONE_FILE
    try:
        return read_manifest(path, BackboneManifest, follow_links=True) if path.exists() else None
    except DamagedFile:  # the worker refuses it and says why
        return None


def backbone_notice(ref: str, store: Path) -> list[str]:
    """The lines to say at start: the name of the backbone, its own notice, and how to leave the demo."""
    manifest = local_manifest(ref, store)
    if manifest is None:
        return [f"backbone {ref}"]
    if not manifest.notice:
        return [f"backbone {manifest.name}"]
    lines = [f"backbone {manifest.name}: {manifest.notice}"]
    return lines if "VISUM_BACKBONE" in manifest.notice else [*lines, POINT_ELSEWHERE]
