"""What the failures of passes say."""

from __future__ import annotations

import pytest
import torch

from workers.health import Health, out_of_memory
from workers.request import EngineBroken

SHORT = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    torch.AcceleratorError("CUDA error: out of memory"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("could not create a primitive"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:117] . DefaultCPUAllocator: can't allocate memory"),
    MemoryError(),
]
LOST = [
    torch.AcceleratorError("CUDA error: an illegal memory access was encountered"),
    RuntimeError("CUDA error: device-side assert triggered"),
    RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"),
]


@pytest.mark.parametrize("failure", SHORT, ids=str)
def test_memory_that_ran_out_is_known_by_every_name_it_has(failure: Exception) -> None:
    assert out_of_memory(failure)


@pytest.mark.parametrize(
    "failure", [*LOST, RuntimeError("shapes do not match"), ValueError("can't")], ids=str
)
def test_nothing_else_is_taken_for_it(failure: Exception) -> None:
    assert not out_of_memory(failure)


@pytest.mark.parametrize("failure", LOST, ids=str)
def test_a_device_that_fails_once_is_lost(failure: Exception) -> None:
    health = Health()
    assert isinstance(health.judge(failure), EngineBroken)
    assert health.broken


def test_a_bug_is_its_own_requests_affair_unless_nothing_else_gets_through() -> None:
    health, bug = Health(), ValueError("a bug")
    assert health.judge(bug) is health.judge(bug) is bug
    health.answered()
    assert health.judge(bug) is health.judge(bug) is bug
    assert isinstance(health.judge(bug), EngineBroken)
