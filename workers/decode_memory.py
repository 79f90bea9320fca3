"""The memory in which the frames of one video go from the decoding process to the worker, without a copy."""

import fcntl
import mmap
import os
import sys
import tempfile

import numpy as np


class StillWritable(Exception):
    """Somebody else can still change the frames: the decoding process left something behind that holds them."""


class FrameMemory:
    """Room for (count, height, width, 3) uint8, made and sized by the worker and filled by the decoding process.

    The process may not grow files, and on Linux the memory is sealed: it can't be grown, and not be shrunk
    under the worker's feet. Elsewhere it is a file without a name.
    """

    def __init__(self, count: int, height: int, width: int) -> None:
        """
        Raises:
            OSError: if there is no room.
        """
        self._shape = (count, height, width, 3)
        self._bytes = count * height * width * 3
        if sys.platform == "linux":
            self._fd = os.memfd_create("visum-frames", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
            os.ftruncate(self._fd, self._bytes)
            fcntl.fcntl(self._fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)
        else:
            with tempfile.TemporaryFile() as file:
                self._fd = os.dup(file.fileno())
            os.ftruncate(self._fd, self._bytes)

    def fileno(self) -> int:
        """The descriptor that the decoding process is given."""
        return self._fd

    def frames(self) -> np.ndarray:
        """(count, height, width, 3) uint8 over this memory, which is freed with the array.

        Called once the decoding process has ended. Linux refuses the last seal while anybody could still write.

        Raises:
            StillWritable: if the process has left a mapping of it to another one.
        """
        if sys.platform == "linux":
            try:
                fcntl.fcntl(self._fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL)
            except OSError as busy:
                raise StillWritable from busy
        # Private: whoever writes into the array gets pages of his own, and nothing is copied before.
        memory = mmap.mmap(self._fd, self._bytes, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_WRITE)
        return np.frombuffer(memory, np.uint8).reshape(self._shape)

    def close(self) -> None:
        """Give the descriptor back; arrays from `frames` stay good."""
        os.close(self._fd)
