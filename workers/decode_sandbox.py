"""What the decoding process gives up before it looks at the first byte of a stranger's video.

Media parsers are attacked through their input, so the process that runs one has no files, no network
where the kernel lets us drop it, bounded memory and time, and does not outlive its worker.
"""

import contextlib
import ctypes
import os
import resource
import signal
import sys

_PR_SET_PDEATHSIG = 1
_PR_SET_NO_NEW_PRIVS = 38
_CLONE_NEWUSER = 0x10000000
_CLONE_NEWNET = 0x40000000
_OPEN_FILES = 64


def confine(*, memory_bytes: int, cpu_s: int, parent_pid: int) -> None:
    """Bound this process for good. Limits that the platform lacks are skipped: the wall clock is the worker's."""
    _limit(resource.RLIMIT_CPU, cpu_s)
    _limit(resource.RLIMIT_FSIZE, 0)
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_NOFILE, _OPEN_FILES)
    _limit(resource.RLIMIT_AS, memory_bytes)
    if sys.platform == "linux":
        _confine_on_linux(parent_pid)


def _limit(which: int, value: int) -> None:
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(which, (value, value))


def _confine_on_linux(parent_pid: int) -> None:
    """Die with the server, gain no privileges, and leave the network if user namespaces are allowed here."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent_pid:
        os._exit(1)
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNET)
