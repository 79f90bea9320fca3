"""Where uploaded videos are kept between gateway and worker.

`BlobStore` asks for no more than an object store can give: whole blobs under flat keys, nothing
visible before it is complete. `LocalBlobStore` is a folder that both sides can reach.
"""

from __future__ import annotations

import errno
import fcntl
import math
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Protocol

from contract.errors import BlobMissing, StorageFull

_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}", re.ASCII)
_PARTIAL = ".partial"
_OWNER = ".visum-service"  # no blob: their keys never start with a dot


class BlobWriter(Protocol):
    """One blob being written. Leaving its context without `commit` leaves nothing behind."""

    def write(self, chunk: bytes) -> None:
        """Append. Raises StorageFull when there is no room."""

    def commit(self) -> None:
        """Make the blob durable, then visible under its key, whole."""


class BlobStore(Protocol):
    """Videos by key. A key is 1 to 128 letters, digits, `.`, `_`, `-`; it never starts with a dot."""

    def create(self, key: str) -> AbstractContextManager[BlobWriter]:
        """Begin a blob."""

    def open_read(self, key: str) -> BinaryIO:
        """Its bytes. Raises BlobMissing."""

    def local_path(self, key: str) -> AbstractContextManager[Path]:
        """A file with its bytes while the context lasts, downloaded if need be. Raises BlobMissing."""

    def exists(self, key: str) -> bool:
        """Whether a complete blob is stored."""

    def size(self, key: str) -> int:
        """Bytes. Raises BlobMissing."""

    def delete(self, key: str) -> bool:
        """Remove it; False when there was none."""

    def keys(self, *, older_than_s: float = 0) -> Iterator[str]:
        """The keys of all blobs that were complete at least `older_than_s` seconds ago."""

    def free_bytes(self) -> int | None:
        """Room left; None where the store has no bound."""

    def check(self) -> None:
        """Prove that a blob can be written. Raises OSError or StorageFull."""

    def discard_partial(self, *, older_than_s: float) -> int:
        """Remove what writers that died left behind, untouched for so long; how many."""

    def owner(self) -> str | None:
        """The id of the service whose videos these are, once it was noted."""

    def set_owner(self, service: str) -> None:
        """Note it, in place of what was noted before."""


class LocalBlobStore:
    """Blobs as files of one folder. Safe for any number of processes that share it."""

    def __init__(self, root: Path) -> None:
        self._root = Path(root)
        self._root.mkdir(parents=True, exist_ok=True)

    @contextmanager
    def create(self, key: str) -> Iterator[BlobWriter]:
        target = self._path(key)
        partial = self._root / f"{key}.{os.urandom(6).hex()}{_PARTIAL}"
        with _storage_errors(), partial.open("xb") as file:
            with suppress(OSError):  # a disk without locks: only the file's age tells then
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            try:
                yield _LocalWriter(file, partial, target)
            finally:
                partial.unlink(missing_ok=True)  # a commit has renamed it away

    def open_read(self, key: str) -> BinaryIO:
        try:
            return self._path(key).open("rb")
        except FileNotFoundError as error:
            raise BlobMissing(key) from error

    @contextmanager
    def local_path(self, key: str) -> Iterator[Path]:
        if not self.exists(key):
            raise BlobMissing(key)
        yield self._path(key)

    def exists(self, key: str) -> bool:
        return self._path(key).is_file()

    def size(self, key: str) -> int:
        try:
            return self._path(key).stat().st_size
        except FileNotFoundError as error:
            raise BlobMissing(key) from error

    def delete(self, key: str) -> bool:
        try:
            self._path(key).unlink()
        except FileNotFoundError:
            return False
        return True

    def keys(self, *, older_than_s: float = 0) -> Iterator[str]:
        for path in self._files(older_than_s):
            if path.suffix != _PARTIAL and path.name != _OWNER:
                yield path.name

    def free_bytes(self) -> int | None:
        return shutil.disk_usage(self._root).free

    def check(self) -> None:
        self._probe(b"visum")

    def discard_partial(self, *, older_than_s: float) -> int:
        old = [path for path in self._files(older_than_s) if path.suffix == _PARTIAL]
        stale = [path for path in old if not _is_being_written(path)]
        for path in stale:
            path.unlink(missing_ok=True)
        return len(stale)

    def owner(self) -> str | None:
        try:
            return (self._root / _OWNER).read_text().strip()
        except FileNotFoundError:
            return None

    def set_owner(self, service: str) -> None:
        partial = self._root / f"{_OWNER}.{os.urandom(6).hex()}{_PARTIAL}"
        with partial.open("x") as file:
            file.write(service)
            file.flush()
            os.fsync(file.fileno())
            partial.rename(self._root / _OWNER)

    def _path(self, key: str) -> Path:
        if _KEY.fullmatch(key) is None or key.endswith(_PARTIAL):
            raise ValueError(f"{key!r} is not a blob key")
        return self._root / key

    def _probe(self, content: bytes) -> float:
        """Write a file and remove it; the time that it had."""
        with _storage_errors():
            probe = self._root / f"probe.{os.urandom(6).hex()}{_PARTIAL}"
            try:
                probe.write_bytes(content)
                return probe.stat().st_mtime
            finally:
                probe.unlink(missing_ok=True)

    def _files(self, older_than_s: float) -> Iterator[Path]:
        # How old a file is, the disk's own clock says, which may be that of another machine. An empty file finds room
        # on a full disk too.
        before = self._probe(b"") - older_than_s if older_than_s else math.inf
        with os.scandir(self._root) as entries:
            for entry in entries:
                try:
                    if entry.is_file() and entry.stat().st_mtime <= before:
                        yield Path(entry.path)
                except FileNotFoundError:  # another process was quicker
                    continue


class _LocalWriter:
    def __init__(self, file: BinaryIO, partial: Path, target: Path) -> None:
        self._file, self._partial, self._target = file, partial, target

    def write(self, chunk: bytes) -> None:
        with _storage_errors():
            self._file.write(chunk)

    def commit(self) -> None:
        with _storage_errors():
            self._file.flush()
            os.fsync(self._file.fileno())
            self._partial.rename(self._target)
            _sync_folder(self._target.parent)


def _is_being_written(path: Path) -> bool:
    """Whether a process that lives has it open: its writer holds a lock, which ends with the process."""
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # gone meanwhile, or a disk without locks
        return False
    return False


def _sync_folder(folder: Path) -> None:
    """A rename survives a power cut only once its folder is on disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _storage_errors() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StorageFull("no room left for the video") from error
        raise
