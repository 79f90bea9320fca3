"""The uploaded file on its way to storage: sniffed, bounded, hashed and written as it comes."""

from __future__ import annotations

import hashlib
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Self

from starlette.concurrency import run_in_threadpool

from contract.blobs import BlobStore, BlobWriter
from contract.containers import SNIFF_BYTES, Container, describe, sniff
from contract.errors import Code, StorageFull
from service.problems import ApiError

BLOCK_BYTES = 2**20  # written and hashed at a time, in a thread: the event loop never waits for the disk


@dataclass(frozen=True, slots=True)
class StoredVideo:
    """A video that is durable in the blob store."""

    blob_key: str
    sha256: str
    size_bytes: int
    container: Container


class VideoSink:
    """Takes one file. Leaving the context before `commit` leaves nothing behind."""

    def __init__(self, blobs: BlobStore, key: str, *, max_bytes: int, min_free_bytes: int) -> None:
        self._blobs, self._key = blobs, key
        self._max_bytes, self._min_free_bytes = max_bytes, min_free_bytes
        self._stack = ExitStack()
        self._writer: BlobWriter | None = None
        self._container: Container | None = None
        self._head = b""
        self._block: list[bytes] = []  # chunks as they came: to join them would copy every byte once more
        self._block_bytes = 0
        self._hash = hashlib.sha256()
        self.size_bytes = 0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._writer is not None:
            await run_in_threadpool(self._stack.close)  # removing a large file takes its time

    async def take(self, data: bytes) -> None:
        """Some more bytes.

        Raises:
            ApiError: the file is too large (413), or no video container that we take (415).
            StorageFull: there is no room.
        """
        self.size_bytes += len(data)
        if self.size_bytes > self._max_bytes:
            raise ApiError(
                Code.REQUEST_TOO_LARGE,
                f"The video is larger than the {self._max_bytes} bytes that are taken.",
            )
        self._block.append(data)
        self._block_bytes += len(data)
        if self._container is None:
            self._head += data[: SNIFF_BYTES - len(self._head)]
            if len(self._head) == SNIFF_BYTES:
                self._sniff()
        if self._block_bytes >= BLOCK_BYTES:
            await run_in_threadpool(self._write)

    async def end(self) -> None:
        """The file is complete. Raises ApiError (415) where a short one is no video."""
        if self._container is None:
            self._sniff()

    def commit(self) -> StoredVideo:
        """Make it durable; only from here on is there a video. Waits for the disk: call it in a thread.

        Raises:
            StorageFull.
        """
        assert self._container is not None
        self._write().commit()
        self._stack.close()
        self._writer = None
        return StoredVideo(self._key, self._hash.hexdigest(), self.size_bytes, self._container)

    def _sniff(self) -> None:
        if not self._head:
            raise ApiError(Code.VIDEO_EMPTY, "The uploaded file is empty.")
        self._container = sniff(self._head)
        if self._container is None:
            taken = ", ".join(container.value for container in Container)
            raise ApiError(
                Code.VIDEO_UNSUPPORTED_CONTAINER,
                f"The file looks like {describe(self._head)}. Send a video; the containers taken are {taken}.",
            )

    def _write(self) -> BlobWriter:
        if self._writer is None:
            self._writer = self._stack.enter_context(self._blobs.create(self._key))
        free = self._blobs.free_bytes()
        if free is not None and free - self._block_bytes < self._min_free_bytes:
            raise StorageFull("the disk of the videos is at its floor")
        for chunk in self._block:
            self._writer.write(chunk)
            self._hash.update(chunk)
        self._block.clear()
        self._block_bytes = 0
        return self._writer
