"""What a backbone reference means: a name in the store, a folder, or a hub id. No torch here."""

from __future__ import annotations

import os
import re
from pathlib import Path

from pydantic_core import from_json

from model_store.checkpoint import weight_files
from model_store.errors import BackboneNotFound, BackboneRefused, DamagedFile
from model_store.files import SHIPPED_ROOT, read_bytes

BACKBONES = "backbones"
ADAPTERS = "adapters"
DEFAULT_BACKBONE = "visum-demo"

NATIVE_TYPE = "video_llama_3"
ORIGINAL_TYPE = "videollama3_qwen2"
MAX_CONFIG_BYTES = 16 * 2**20

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}\Z")
_HUB_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}/[A-Za-z0-9][A-Za-z0-9._-]{0,95}\Z")
_HUB_FILES = ("*.safetensors", "*.json", "*.jinja", "*.txt", "*.model")


def adapter_roots(store: Path | None) -> list[Path]:
    """The folders of adapters: the shipped one first, then the machine's own store."""
    return [SHIPPED_ROOT / ADAPTERS, *([store / ADAPTERS] if store is not None else [])]


def backbone_roots(store: Path | None) -> list[Path]:
    """The folders of backbones: the machine's own store first, so that it may replace a shipped one."""
    return [*([store / BACKBONES] if store is not None else []), SHIPPED_ROOT / BACKBONES]


def backbone_names(store: Path | None) -> dict[str, Path]:
    """Every backbone folder of the store and the package by its name, sorted."""
    found: dict[str, Path] = {}
    for root in backbone_roots(store):
        for folder in sorted(root.iterdir()) if root.is_dir() else ():
            if _NAME.match(folder.name) and (folder / "config.json").exists():
                found.setdefault(folder.name, folder)
    return dict(sorted(found.items()))


def find_backbone(ref: str, *, store: Path | None = None) -> tuple[str, Path]:
    """Resolve a reference to (name, folder) and check that the folder is a native checkpoint.

    A hub id is downloaded (or taken from the hub's cache); no code of the repository is fetched or run.

    Raises:
        BackboneNotFound: nothing answers to the reference.
        BackboneRefused: the folder is another model, in the original layout, or holds no safetensors.
    """
    tried: list[str] = []
    folder = _find_named(ref, store, tried) or _find_folder(ref, tried)
    name = ref if folder is None else folder.name
    folder = folder or _find_on_hub(ref, tried)
    if folder is None:
        raise BackboneNotFound(ref, tried)
    _check_native(name, folder)
    return name, folder


def _find_named(ref: str, store: Path | None, tried: list[str]) -> Path | None:
    if not _NAME.match(ref):
        return None
    for root in backbone_roots(store):
        if (root / ref / "config.json").exists():
            return root / ref
        tried.append(f"no such name in {root}")
    return None


def _find_folder(ref: str, tried: list[str]) -> Path | None:
    folder = Path(ref).expanduser()
    if ref and folder.is_dir():  # Path("") is the current folder
        return folder.resolve()
    tried.append(f"no folder {folder}")
    return None


def _find_on_hub(ref: str, tried: list[str]) -> Path | None:
    if not _HUB_ID.match(ref):
        tried.append("not a hub id (org/name)")
        return None
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
    except ImportError:
        tried.append("huggingface-hub is not installed")
        return None
    try:
        return Path(snapshot_download(ref, allow_patterns=list(_HUB_FILES)))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError, ValueError) as error:
        offline = " (offline mode)" if os.environ.get("HF_HUB_OFFLINE") else ""
        reason = str(error).strip().splitlines()
        tried.append(f"the hub{offline}: {reason[0] if reason else type(error).__name__}")
        return None


def _check_native(name: str, folder: Path) -> None:
    try:
        config = from_json(read_bytes(folder / "config.json", limit=MAX_CONFIG_BYTES, follow_links=True))
        model_type = config.get("model_type") if isinstance(config, dict) else None
        if model_type == NATIVE_TYPE:
            weight_files(folder)
            return
    except (DamagedFile, ValueError) as error:
        raise BackboneRefused(name, str(error)) from error
    if model_type == ORIGINAL_TYPE:
        raise BackboneRefused(
            name, "it is in the original layout (videollama3_qwen2); convert it with `visum backbones import`"
        )
    raise BackboneRefused(name, f"its model_type is {model_type!r}, not {NATIVE_TYPE!r}")
