"""The user's own video files: found by name, compared by their bytes."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

from training.data.errors import FolderUnfit

VIDEO_SUFFIXES = frozenset(
    {".mp4", ".m4v", ".mov", ".qt", ".webm", ".mkv", ".avi", ".ts", ".mts", ".m2ts", ".mpg", ".mpeg", ".vob"}
)
"""Endings of the containers that the decoder takes; what is in a file is told from its bytes when it is decoded."""


class VideoFolder:
    """The video files of a folder and of the folders below it, listed once.

    Raises:
        FolderUnfit: it is no folder.
    """

    def __init__(self, root: Path) -> None:
        if not root.is_dir():
            raise FolderUnfit(f"{root} is no folder: name the one that holds the videos")
        self._root = root
        self.files = sorted(
            path for path in root.rglob("*") if path.suffix.lower() in VIDEO_SUFFIXES and path.is_file()
        )
        self._named: defaultdict[str, list[Path]] = defaultdict(list)
        for path in self.files:
            below = path.relative_to(root)
            for name in {path.stem, path.name, below.as_posix(), below.with_suffix("").as_posix()}:
                self._named[name].append(path)

    def find(self, names: Iterable[str]) -> list[Path]:
        """The files of the first of these names that any file has."""
        return next((self._named[name] for name in names if name in self._named), [])

    def name(self, path: Path) -> str:
        """How a file of the folder is spoken of."""
        return path.relative_to(self._root).as_posix()


def same_bytes(paths: Sequence[Path]) -> list[list[Path]]:
    """Groups of two or more files with equal bytes, in the order given. Files of a size of their own are not read."""
    by_size: defaultdict[int, list[Path]] = defaultdict(list)
    for path in paths:
        by_size[path.stat().st_size].append(path)
    groups: defaultdict[str, list[Path]] = defaultdict(list)
    for equally_large in by_size.values():
        for path in equally_large if len(equally_large) > 1 else ():
            try:
                with path.open("rb") as file:
                    digest = hashlib.file_digest(file, "sha256").hexdigest()
            except OSError:  # it is told as unreadable when it is decoded
                continue
            groups[digest].append(path)
    return [group for group in groups.values() if len(group) > 1]
