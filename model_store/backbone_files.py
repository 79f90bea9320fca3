"""The files of a backbone folder beside its weights: configuration, tokenizer, templates, the recognition mark.

The fingerprint covers the tensors; with a signature the manifest names the sha256 of every file else. No torch here.
"""

from __future__ import annotations

from pathlib import Path

from model_store.checkpoint import weight_files
from model_store.errors import DamagedFile
from model_store.files import file_sha256
from model_store.manifest import BACKBONE_FILE, BackboneManifest
from model_store.signatures import signature_path


def other_files(folder: Path) -> dict[str, str]:
    """The sha256 of every file but weights and manifest, by its path in the folder. Hidden ones are nobody's.

    Raises:
        DamagedFile: one cannot be read, or there are no weights.
    """
    apart = {folder / BACKBONE_FILE, signature_path(folder / BACKBONE_FILE), *weight_files(folder)}
    paths = (path for path in sorted(folder.rglob("*")) if path not in apart and not path.is_dir())
    names = {path.relative_to(folder): path for path in paths}
    return {
        name.as_posix(): file_sha256(path, follow_links=True)
        for name, path in names.items()
        if not any(part.startswith(".") for part in name.parts)
    }


def check_files(folder: Path, manifest: BackboneManifest) -> None:
    """Hold a signed manifest against the folder.

    Raises:
        DamagedFile: the manifest does not say what all is to be, or something is other, missing or more.
    """
    path = folder / BACKBONE_FILE
    if manifest.files is None or manifest.fingerprint is None:
        raise DamagedFile(path, "is signed, but states no fingerprint or no files: nothing else is covered")
    found = other_files(folder)
    for name in sorted(manifest.files.keys() | found.keys()):
        if name not in found:
            raise DamagedFile(folder / name, "is missing")
        if name not in manifest.files:
            raise DamagedFile(folder / name, "is not listed in the signed manifest")
        if found[name] != manifest.files[name]:
            raise DamagedFile(folder / name, "its sha256 is not the signed manifest's")
