"""Reading and writing the store's files without trusting what lies on the disk."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from model_store.errors import DamagedFile

CHUNK_BYTES = 2**20
SHIPPED_ROOT = Path(__file__).parent / "shipped"


@contextmanager
def open_regular(path: Path, *, follow_links: bool = False) -> Iterator[BinaryIO]:
    """Open a regular file for reading; never blocks on a pipe or device.

    Links are refused unless `follow_links`, which backbones need: a hub snapshot is a folder of links.

    Raises:
        DamagedFile: it is missing, unreadable, a link or not a regular file.
    """
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | (0 if follow_links else os.O_NOFOLLOW)
    try:
        descriptor = os.open(path, flags)
    except OSError as error:
        refused = path.is_symlink() and not follow_links
        reason = "is a symbolic link" if refused else (error.strerror or "cannot be opened").lower()
        raise DamagedFile(path, reason) from error
    with os.fdopen(descriptor, "rb") as stream:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise DamagedFile(path, "is not a regular file")
        yield stream


def read_bytes(path: Path, *, limit: int, follow_links: bool = False) -> bytes:
    """The whole file, if it has at most `limit` bytes.

    Raises:
        DamagedFile: see :func:`open_regular`, or it is larger than `limit`.
    """
    with open_regular(path, follow_links=follow_links) as stream:
        raw = stream.read(limit + 1)
    if len(raw) > limit:
        raise DamagedFile(path, f"is larger than {limit} bytes")
    return raw


def file_sha256(path: Path, *, follow_links: bool = False) -> str:
    """sha256 of a regular file's bytes, in hex, read in chunks."""
    digest = hashlib.sha256()
    with open_regular(path, follow_links=follow_links) as stream:
        while chunk := stream.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def write_durably(path: Path, raw: bytes) -> None:
    """Write a file and force it to the disk before returning."""
    with open(path, "wb") as stream:
        stream.write(raw)
        stream.flush()
        os.fsync(stream.fileno())


def sync_folder(folder: Path) -> None:
    """Force a folder's entries (a rename into it, say) to the disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
