"""What a pass that failed says: about memory, about the requests in it, or about the whole process."""

import logging

import torch

from workers.request import EngineBroken

log = logging.getLogger("visum.engine")

_OUT_OF_MEMORY = (
    "can't allocate memory",  # torch's allocator for the CPU
    "could not create a primitive",  # oneDNN
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
)
_DEVICE = ("CUDA error", "CUBLAS_STATUS", "CUDNN_STATUS")
_FAILED_PASSES = 3
"""So many in a row, without an answer between them, are not the requests' fault: as many as a job has tries, so that
none is given up because of a process that no longer works."""


def out_of_memory(failure: BaseException) -> bool:
    """Whether memory ran out. torch has an error of its own for its allocator on a GPU, and none for the others."""
    if isinstance(failure, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(failure, RuntimeError) and any(words in str(failure) for words in _OUT_OF_MEMORY)


def _device_failed(failure: BaseException) -> bool:
    """Whether the device refused: after such an error it refuses everything that this process asks."""
    if out_of_memory(failure):
        return False
    return isinstance(failure, torch.AcceleratorError) or (
        isinstance(failure, RuntimeError) and any(words in str(failure) for words in _DEVICE)
    )


class Health:
    """Whether this process is still good for anything. `broken` stays once it is true."""

    def __init__(self) -> None:
        self.broken = False
        self._failed = 0

    def answered(self) -> None:
        """Passes get through."""
        self._failed = 0

    def judge(self, failure: Exception) -> Exception:
        """What those in a failed pass are told: the failure, or that everything ends with it."""
        self._failed += 1
        if not self.broken and (_device_failed(failure) or self._failed >= _FAILED_PASSES):
            log.error("the engine is broken after %d failed passes: %s", self._failed, failure)
            self.broken = True
        return EngineBroken() if self.broken else failure
