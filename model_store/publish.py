"""Putting an adapter into a store, atomically. No torch here.

The files are copied and synced in a hidden folder beside the versions; one rename then claims the next
number. Renaming onto a folder that is there fails, so of two publishers that want one number exactly one
gets it and the other takes the next. A reader sees a version whole or not at all.
"""

from __future__ import annotations

import errno
import os
import shutil
import time
import uuid
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

from model_store.errors import AdapterError, DamagedFile, PublishRefused
from model_store.files import read_bytes, sync_folder, write_durably
from model_store.manifest import (
    ALLOWED_FILES,
    DRAFT_FILE,
    MANIFEST_FILE,
    REQUIRED_FILES,
    AdapterDraft,
    AdapterManifest,
    manifest_bytes,
    read_manifest,
)
from model_store.registry import VERSION_NAME, AdapterEntry, AdapterRegistry

STAGING_PREFIX = ".staging-"
STAGING_LEFTOVER_S = 24 * 3600
MAX_FILE_BYTES = 2 * 2**30
READ_ONLY = 0o444

Check = Callable[[AdapterEntry], object]


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
        PublishRefused: a file is missing, foreign, a link or damaged, or `check` refused the adapter.
    """
    draft = draft or _read_draft(staged)
    files = _read_files(staged)
    domain_folder = root / draft.domain
    domain_folder.mkdir(parents=True, exist_ok=True)
    _sweep_leftovers(domain_folder)
    staging = domain_folder / f"{STAGING_PREFIX}{uuid.uuid4().hex}"
    staging.mkdir()
    try:
        for name, raw in files.items():
            write_durably(staging / name, raw)
            (staging / name).chmod(READ_ONLY)
        hashes = {name: sha256(raw).hexdigest() for name, raw in sorted(files.items())}
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
        version = 1 + max(_taken(registry, domain_folder), default=0)
        manifest = AdapterManifest(
            **draft.model_dump(), version=version, published_at=datetime.now(UTC), files=dict(hashes)
        )
        manifest_path = staging / MANIFEST_FILE
        manifest_path.unlink(missing_ok=True)
        write_durably(manifest_path, manifest_bytes(manifest))
        manifest_path.chmod(READ_ONLY)
        if check is not None:
            _run_check(check, AdapterEntry(manifest, staging))
            check = None  # the files do not change with the number
        sync_folder(staging)
        target = domain_folder / str(version)
        try:
            os.rename(staging, target)
        except OSError as error:
            if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
                raise
            continue
        sync_folder(domain_folder)
        return AdapterEntry(manifest, target)


def _taken(registry: AdapterRegistry, domain_folder: Path) -> set[int]:
    """Numbers in use in any root; a damaged version still owns its number, and so does a stray file."""
    folders = {root / domain_folder.name for root in registry.roots} | {domain_folder}
    names = (name for folder in folders if folder.is_dir() for name in os.listdir(folder))
    return {int(name) for name in names if VERSION_NAME.match(name)}


def _run_check(check: Check, entry: AdapterEntry) -> None:
    try:
        check(entry)
    except (AdapterError, DamagedFile) as error:
        raise PublishRefused(str(error)) from error


def _read_draft(staged: Path | Mapping[str, bytes]) -> AdapterDraft:
    if not isinstance(staged, Path):
        raise PublishRefused("files without a draft: say what the manifest is to hold")
    try:
        if (staged / DRAFT_FILE).exists():
            return read_manifest(staged / DRAFT_FILE, AdapterDraft)
        return read_manifest(staged / MANIFEST_FILE, AdapterManifest).draft()
    except DamagedFile as error:
        raise PublishRefused(f"{staged}: {error}") from error


def _read_files(staged: Path | Mapping[str, bytes]) -> dict[str, bytes]:
    if isinstance(staged, Path):
        if not staged.is_dir():
            raise PublishRefused(f"{staged} is not a folder")
        visible = {name for name in os.listdir(staged) if not name.startswith(".")}
        names = visible - {DRAFT_FILE, MANIFEST_FILE}
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
