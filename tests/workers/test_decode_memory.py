"""The memory of the frames: filled by another process, then nobody's but the worker's."""

from __future__ import annotations

import mmap
import os
import sys
from collections.abc import Iterator

import numpy as np
import pytest

from workers.decode_memory import FrameMemory, StillWritable

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="seals are Linux's")


@pytest.fixture
def memory() -> Iterator[FrameMemory]:
    memory = FrameMemory(2, 3, 4)
    yield memory
    memory.close()


def test_what_another_process_wrote_is_there_without_a_copy(memory: FrameMemory) -> None:
    with mmap.mmap(memory.fileno(), 72) as view:
        view[:] = bytes(range(72))
    frames = memory.frames()
    assert frames.shape == (2, 3, 4, 3)
    assert (frames.reshape(-1) == np.arange(72)).all()
    assert not frames.flags.owndata


def test_the_frames_can_be_written_to(memory: FrameMemory) -> None:
    frames = memory.frames()
    frames[0, 0, 0] = 7
    assert frames.sum() == 21


def test_the_frames_outlive_the_descriptor() -> None:
    memory = FrameMemory(1, 1, 1)
    frames = memory.frames()
    memory.close()
    assert frames.sum() == 0


@linux_only
def test_memory_that_somebody_can_still_write_to_is_not_taken(memory: FrameMemory) -> None:
    with mmap.mmap(memory.fileno(), 72), pytest.raises(StillWritable):
        memory.frames()


@linux_only
@pytest.mark.parametrize("size", [0, 73])
def test_the_memory_keeps_its_size(memory: FrameMemory, size: int) -> None:
    with pytest.raises(PermissionError):
        os.ftruncate(memory.fileno(), size)


@linux_only
def test_memory_is_given_back_with_the_array() -> None:
    def mapped() -> int:
        with open("/proc/self/maps") as maps:
            return sum("visum-frames" in line for line in maps)

    memory = FrameMemory(1, 1, 1)
    frames = memory.frames()
    memory.close()
    before = mapped()
    del frames
    assert (before, mapped()) == (1, 0)
