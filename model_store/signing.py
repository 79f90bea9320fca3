"""Signing an adapter or a backbone: its manifest is completed, so that it holds the hash of all else, and signed.

This is done where the secret key is, which need not be a machine that serves. No torch here.
"""

from __future__ import annotations

from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

from minisign import SecretKey

from model_store.backbone_files import other_files
from model_store.checkpoint import checkpoint_fingerprint
from model_store.errors import DamagedFile, PublishRefused, SigningRefused
from model_store.files import write_durably
from model_store.manifest import (
    BACKBONE_FILE,
    DRAFT_FILE,
    MANIFEST_FILE,
    AdapterManifest,
    BackboneManifest,
    manifest_bytes,
    read_manifest,
)
from model_store.publish import read_draft, read_files, taken_versions
from model_store.registry import AdapterRegistry
from model_store.signatures import sign


def sign_adapter(
    folder: Path, key: SecretKey, registry: AdapterRegistry, *, version: int | None = None
) -> AdapterManifest:
    """Sign a staged adapter as the next version of its domain, or as `version`; a published one as what it is.

    Raises:
        SigningRefused: the folder holds no complete adapter, or not the files that its manifest says.
    """
    try:
        manifest = _manifest(folder, registry, version)
    except (PublishRefused, DamagedFile) as error:
        raise SigningRefused(f"{folder}: {error}") from error
    sign(folder / MANIFEST_FILE, key, comment=f"adapter {manifest.domain}/{manifest.version}")
    return manifest


def sign_backbone(folder: Path, name: str, key: SecretKey) -> BackboneManifest:
    """Write the fingerprint and every other file's hash into `visum.json`, and sign that.

    Raises:
        SigningRefused: the folder holds no sound checkpoint.
    """
    path = folder / BACKBONE_FILE
    try:
        said = read_manifest(path, BackboneManifest) if path.exists() else BackboneManifest(name=name)
        found = {"fingerprint": checkpoint_fingerprint(folder), "files": other_files(folder)}
    except DamagedFile as error:
        raise SigningRefused(f"{folder}: {error}") from error
    if said.fingerprint not in (None, found["fingerprint"]):
        raise SigningRefused(f"{folder}: {BACKBONE_FILE} gives another fingerprint than its weights have")
    manifest = said.model_copy(update=found)
    write_durably(path, manifest_bytes(manifest))
    sign(path, key, comment=f"backbone {manifest.name}")
    return manifest


def _manifest(folder: Path, registry: AdapterRegistry, version: int | None) -> AdapterManifest:
    """The manifest to sign, as it lies in the folder: the one that is there, or a new one."""
    path = folder / MANIFEST_FILE
    hashes = {name: sha256(raw).hexdigest() for name, raw in sorted(read_files(folder).items())}
    if version is None and path.exists() and not (folder / DRAFT_FILE).exists():
        published = read_manifest(path, AdapterManifest)
        if published.files != hashes:
            raise DamagedFile(path, "its hashes are not those of the files")
        return published
    draft = read_draft(folder)
    number = version or 1 + max(taken_versions(registry, draft.domain), default=0)
    manifest = AdapterManifest(
        **draft.model_dump(), version=number, published_at=datetime.now(UTC), files=hashes
    )
    path.unlink(missing_ok=True)  # that of a published copy is read-only
    write_durably(path, manifest_bytes(manifest))
    return manifest
