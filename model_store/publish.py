"""Putting an adapter into a store, atomically. No torch here.

The files are copied and synced in a hidden folder beside the versions; one rename then claims the next
number. Renaming onto a folder that is there fails, so of two publishers that want one number exactly one
gets it and the other takes the next. A reader sees a version whole or not at all.

A folder that was signed (`signing.py`) is published as it is: under the version that its signed manifest names.
"""

from __future__ import annotations

import errno
import os
import shutil
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

from model_store.errors import AdapterError, DamagedFile, PublishRefused
from model_store.files import read_bytes, sync_folder, write_durably
from model_store.manifest import (
    ALLOWED_FILES,
    DRAFT_FILE,
    MANIFEST_FILE,
    MAX_MANIFEST_BYTES,
    REQUIRED_FILES,
    AdapterDraft,
    AdapterManifest,
    manifest_bytes,
    parse_manifest,
    read_manifest,
)
from model_store.registry import SIGNATURE_FILE, VERSION_NAME, AdapterEntry, AdapterRegistry
from model_store.signatures import MAX_SIGNATURE_BYTES

STAGING_PREFIX = ".staging-"
STAGING_LEFTOVER_S = 24 * 3600
MAX_FILE_BYTES = 2 * 2**30
READ_ONLY = 0o444

Check = Callable[[AdapterEntry], object]


@dataclass(frozen=True)
class _Signed:
    """A manifest whose very bytes are signed, and the signature."""

    manifest: AdapterManifest
    raw: bytes
    signature: bytes


def publish(
    registry: AdapterRegistry,
    root: Path,
    staged: Path | Mapping[str, bytes],
    draft: AdapterDraft | None = None,
    *,
    check: Check | None = None,
) -> AdapterEntry:
    """Publish staged files as the next version of their domain and return it.

    Args:
        registry: every root that version numbers must be unique over; `root` need not be among them.
        root: the folder of adapters to write to.
        staged: a folder as `adapters.write_adapter` leaves it, or a copy of a published one, or the files.
        draft: what the manifest is to say; read from the folder's `draft.json` or `manifest.json` if None.
        check: called with the staged adapter before it becomes visible; what it raises stops the publishing.

    Raises:
        PublishRefused: a file is missing, foreign, a link or damaged, `check` refused the adapter, or the
            registry trusts signatures alone and there is none that it trusts.
    """
    signed = _read_signed(registry, staged) if draft is None else None
    if signed is None and registry.trusted.ask_for(root):
        raise PublishRefused(
            "it is not signed, and VISUM_TRUSTED_KEYS asks for it; sign it with `visum adapters sign`"
        )
    draft = draft or (read_draft(staged) if signed is None else signed.manifest.draft())
    files = read_files(staged)
    domain_folder = root / draft.domain
    domain_folder.mkdir(parents=True, exist_ok=True)
    _sweep_leftovers(domain_folder)
    staging = domain_folder / f"{STAGING_PREFIX}{uuid.uuid4().hex}"
    staging.mkdir()
    try:
        for name, raw in files.items():
            _write(staging / name, raw)
        hashes = {name: sha256(raw).hexdigest() for name, raw in sorted(files.items())}
        if signed is not None:
            return _claim_signed(registry, domain_folder, staging, signed, hashes, check)
        return _claim(registry, domain_folder, staging, draft, hashes, check)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _claim(
    registry: AdapterRegistry,
    domain_folder: Path,
    staging: Path,
    draft: AdapterDraft,
    hashes: Mapping[str, str],
    check: Check | None,
) -> AdapterEntry:
    while True:
        version = 1 + max(taken_versions(registry, draft.domain, domain_folder), default=0)
        manifest = AdapterManifest(
            **draft.model_dump(), version=version, published_at=datetime.now(UTC), files=dict(hashes)
        )
        _write(staging / MANIFEST_FILE, manifest_bytes(manifest))
        if check is not None:
            _run_check(check, AdapterEntry(manifest, staging))
            check = None  # the files do not change with the number
        if (entry := _make_visible(staging, domain_folder, manifest)) is not None:
            return entry


def _claim_signed(
    registry: AdapterRegistry,
    domain_folder: Path,
    staging: Path,
    signed: _Signed,
    hashes: Mapping[str, str],
    check: Check | None,
) -> AdapterEntry:
    manifest = signed.manifest
    for name in sorted(manifest.files.keys() | hashes.keys()):
        if manifest.files.get(name) != hashes.get(name):
            raise PublishRefused(f"{name}: its sha256 is not the signed manifest's")
    _write(staging / MANIFEST_FILE, signed.raw)
    _write(staging / SIGNATURE_FILE, signed.signature)
    if check is not None:
        _run_check(check, AdapterEntry(manifest, staging))
    if manifest.version not in taken_versions(registry, manifest.domain, domain_folder):
        entry = _make_visible(staging, domain_folder, manifest)
        if entry is not None:
            return entry
    raise PublishRefused(
        f"it was signed as version {manifest.version} of {manifest.domain}, which is taken; sign it as another"
    )


def _make_visible(staging: Path, domain_folder: Path, manifest: AdapterManifest) -> AdapterEntry | None:
    """The published version; None if another publisher took its number first."""
    sync_folder(staging)
    target = domain_folder / str(manifest.version)
    try:
        os.rename(staging, target)
    except OSError as error:
        if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
            raise
        return None
    sync_folder(domain_folder)
    return AdapterEntry(manifest, target)


def _write(path: Path, raw: bytes) -> None:
    path.unlink(missing_ok=True)
    write_durably(path, raw)
    path.chmod(READ_ONLY)


def taken_versions(registry: AdapterRegistry, domain: str, *more: Path) -> set[int]:
    """Numbers in use in any root; a damaged version still owns its number, and so does a stray file."""
    folders = {root / domain for root in registry.roots} | set(more)
    names = (name for folder in folders if folder.is_dir() for name in os.listdir(folder))
    return {int(name) for name in names if VERSION_NAME.match(name)}


def _run_check(check: Check, entry: AdapterEntry) -> None:
    try:
        check(entry)
    except (AdapterError, DamagedFile) as error:
        raise PublishRefused(str(error)) from error


def read_draft(staged: Path | Mapping[str, bytes]) -> AdapterDraft:
    if not isinstance(staged, Path):
        raise PublishRefused("files without a draft: say what the manifest is to hold")
    try:
        if (staged / DRAFT_FILE).exists():
            return read_manifest(staged / DRAFT_FILE, AdapterDraft)
        return read_manifest(staged / MANIFEST_FILE, AdapterManifest).draft()
    except DamagedFile as error:
        raise PublishRefused(f"{staged}: {error}") from error


def _read_signed(registry: AdapterRegistry, staged: Path | Mapping[str, bytes]) -> _Signed | None:
    """The signed manifest of a folder, None where it has no signature."""
    if not isinstance(staged, Path) or not (staged / SIGNATURE_FILE).exists():
        return None
    path = staged / MANIFEST_FILE
    try:
        raw = read_bytes(path, limit=MAX_MANIFEST_BYTES)
        signature = read_bytes(staged / SIGNATURE_FILE, limit=MAX_SIGNATURE_BYTES)
        registry.trusted.check(path, raw)
        return _Signed(parse_manifest(path, raw, AdapterManifest), raw, signature)
    except DamagedFile as error:
        raise PublishRefused(str(error)) from error


def read_files(staged: Path | Mapping[str, bytes]) -> dict[str, bytes]:
    if isinstance(staged, Path):
        if not staged.is_dir():
            raise PublishRefused(f"{staged} is not a folder")
        visible = {name for name in os.listdir(staged) if not name.startswith(".")}
        names = visible - {DRAFT_FILE, MANIFEST_FILE, SIGNATURE_FILE}
    else:
        names = set(staged)
    if foreign := sorted(names - ALLOWED_FILES):
        raise PublishRefused(f"not a file of an adapter: {', '.join(foreign)}")
    if missing := sorted(REQUIRED_FILES - names):
        raise PublishRefused(f"the adapter lacks {', '.join(missing)}")
    if not isinstance(staged, Path):
        return dict(staged)
    try:
        return {name: read_bytes(staged / name, limit=MAX_FILE_BYTES) for name in names}
    except DamagedFile as error:
        raise PublishRefused(str(error)) from error


def _sweep_leftovers(domain_folder: Path) -> None:
    """Remove what a publisher that was killed a day ago left behind."""
    for item in domain_folder.glob(f"{STAGING_PREFIX}*"):
        try:
            old = time.time() - item.stat().st_mtime > STAGING_LEFTOVER_S
        except FileNotFoundError:
            continue
        if old:
            shutil.rmtree(item, ignore_errors=True)
