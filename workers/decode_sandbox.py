"""What the decoding process gives up before it looks at the first byte of a stranger's video.

Media parsers are attacked through their input, so the process that runs one has no files and no network, may ask
the kernel for little, is bounded in memory and time, and does not outlive its worker. Each layer stands alone: where
a kernel or a container lacks one, the others hold, and the worker says at its start what is missing.
"""

import contextlib
import os
import resource
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum

from workers.decode_landlock import open_nothing
from workers.decode_libc import call
from workers.decode_namespaces import become_nobody, drop_capabilities, leave_everything
from workers.decode_seccomp import filter_calls

_PR_SET_PDEATHSIG = 1
_OPEN_FILES = 16


class Layer(StrEnum):
    """What holds a decoding process; each is told apart because each can be lacking on its own."""

    LIMITS = "limits"
    PRIVILEGES = "privileges"
    NAMESPACES = "namespaces"
    LANDLOCK = "landlock"
    SECCOMP = "seccomp"


class Sandbox(StrEnum):
    """What becomes of a worker whose machine lacks a layer."""

    BEST_EFFORT = "best-effort"
    REQUIRED = "required"


Missing = dict[str, str]
"""The layers that could not be had, and what the kernel said."""


def confine(*, memory_bytes: int, cpu_s: int, parent_pid: int) -> Missing:
    """Bound this process for good; says what could not be done. The wall clock is the worker's."""
    missing: Missing = {}
    if sys.platform == "linux":
        # In this order: nobody may still make namespaces, their owner may still mount, and the filter ends all that.
        _try(missing, Layer.PRIVILEGES, become_nobody)
        _try(missing, Layer.NAMESPACES, leave_everything)
        _try(missing, Layer.PRIVILEGES, drop_capabilities)
        _die_with(parent_pid)
        _try(missing, Layer.LANDLOCK, open_nothing)
    else:
        absent = f"{sys.platform} has none"
        missing |= {layer: absent for layer in Layer if layer is not Layer.LIMITS}
    for which, soft, hard in _limits(memory_bytes, cpu_s):
        with _noted(missing, Layer.LIMITS):
            resource.setrlimit(which, (soft, hard))
    if sys.platform == "linux":
        _try(missing, Layer.SECCOMP, filter_calls)
    return missing


def _try(missing: Missing, layer: Layer, step: Callable[[], None]) -> None:
    with _noted(missing, layer):
        step()


@contextmanager
def _noted(missing: Missing, layer: Layer) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError) as refusal:
        missing.setdefault(layer, str(refusal))


def _limits(memory_bytes: int, cpu_s: int) -> Iterator[tuple[int, int, int]]:
    """(which, soft, hard) of the kernel's limits. One that is stricter already stays as it is."""
    wanted = (
        (resource.RLIMIT_CORE, 0, 0),
        (resource.RLIMIT_FSIZE, 0, 0),
        (resource.RLIMIT_NOFILE, _OPEN_FILES, _OPEN_FILES),
        (resource.RLIMIT_CPU, cpu_s, cpu_s + 1),  # SIGXCPU tells a used up time from a kill
        (resource.RLIMIT_AS, memory_bytes, memory_bytes),
    )
    for which, soft, hard in wanted:
        most = resource.getrlimit(which)[1]
        if most != resource.RLIM_INFINITY:
            soft, hard = min(soft, most), min(hard, most)
        yield which, soft, hard


def _die_with(parent_pid: int) -> None:
    """End with the server. Set once nothing is given up any more: the kernel forgets it when credentials change."""
    with contextlib.suppress(OSError):  # the leash holds without it
        call("prctl", _PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent_pid:
        os._exit(1)
