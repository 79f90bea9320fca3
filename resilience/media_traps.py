"""A secret that nobody may read and a port that nobody may reach, and what they saw."""

import errno
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np

from resilience.media_attacks import Bait
from resilience.media_clips import write
from workers.decode_libc import call

TOKEN = "visum-planted-4b1d5c0ffee"
COLOUR = (211, 13, 187)
_NEAR = 24
_SHARE = 0.5
_IN_ACCESS, _IN_OPEN = 0x1, 0x20
_EVENT_BYTES = 16  # struct inotify_event without a name, as one watched file gives


class Traps:
    """The secret is a video of one colour that names a token: who shows it or repeats it has read it.

    The kernel counts who opens it besides, and the port counts who connects or sends.
    """

    def __init__(self, folder: Path) -> None:
        self._secret = folder / "secret.ts"
        self._secret.write_bytes(write("mpegts", "h264", colour=COLOUR, metadata={"service_name": TOKEN}))
        self._watch = call("inotify_init1", os.O_NONBLOCK)
        call("inotify_add_watch", self._watch, os.fsencode(self._secret), _IN_ACCESS | _IN_OPEN)
        self._stream = socket.create_server(("127.0.0.1", 0))
        self._datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._datagrams.bind(self._stream.getsockname())
        self.connections = 0
        self._reads = 0
        self._threads = [threading.Thread(target=count) for count in (self._accept, self._receive)]
        for thread in self._threads:
            thread.start()

    @property
    def bait(self) -> Bait:
        """What the attacks reach for."""
        return Bait(self._secret, self._stream.getsockname()[1])

    @property
    def reads(self) -> int:
        """How often anybody opened the secret or read from it."""
        try:
            self._reads += len(os.read(self._watch, 1 << 16)) // _EVENT_BYTES
        except OSError as nothing:
            if nothing.errno != errno.EAGAIN:
                raise
        return self._reads

    def close(self) -> None:
        """Spring no more."""
        self._stream.shutdown(socket.SHUT_RDWR)
        with suppress(OSError):  # a socket that is not connected is woken all the same
            self._datagrams.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        self._stream.close()
        self._datagrams.close()
        os.close(self._watch)

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._stream.accept()
            except OSError:
                return
            self.connections += 1
            connection.close()

    def _receive(self) -> None:
        while self._datagrams.recvfrom(1 << 16)[1] is not None:
            self.connections += 1


@contextmanager
def set_traps(folder: Path) -> Iterator[Traps]:
    """Traps that are cleared away with the block."""
    traps = Traps(folder)
    try:
        yield traps
    finally:
        traps.close()


def shows_the_secret(frames: np.ndarray) -> bool:
    """Whether any of (T, H, W, 3) pictures is the secret's."""
    near = (np.abs(frames.astype(np.int16) - COLOUR) < _NEAR).all(axis=-1)  # (T, H, W)
    return bool((near.mean(axis=(1, 2)) > _SHARE).any())
