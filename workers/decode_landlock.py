"""Landlock: no file is opened by name, no port connected to, no process outside signaled. An unprivileged promise.

https://docs.kernel.org/userspace-api/landlock.html. A ruleset that handles every access and has no rule allows
none of them; what is open already stays usable.
"""

import ctypes
import os

from workers.decode_libc import call

_CREATE_RULESET, _RESTRICT_SELF = 444, 446  # the same on every architecture
_ASK_VERSION = 1
_FILES = ((1, 13), (2, 14), (3, 15), (5, 16))
"""Since which version of Landlock there are how many kinds of access to files."""
_NETWORK = ((4, 2),)  # bind and connect of TCP
_SCOPE = ((6, 2),)  # abstract UNIX sockets, signals


class _Ruleset(ctypes.Structure):
    _fields_ = (("files", ctypes.c_uint64), ("network", ctypes.c_uint64), ("scope", ctypes.c_uint64))


def open_nothing() -> None:
    """From here on this process opens nothing that has a name. Needs no_new_privs.

    Raises:
        OSError: the kernel has no Landlock, or it is switched off.
    """
    version = call("syscall", _CREATE_RULESET, None, 0, _ASK_VERSION)
    ruleset = _Ruleset(_all(_FILES, version), _all(_NETWORK, version), _all(_SCOPE, version))
    # An older kernel takes what it does not know if that is zero.
    descriptor = call("syscall", _CREATE_RULESET, ctypes.byref(ruleset), ctypes.sizeof(ruleset), 0)
    try:
        call("syscall", _RESTRICT_SELF, descriptor, 0)
    finally:
        os.close(descriptor)


def _all(kinds: tuple[tuple[int, int], ...], version: int) -> int:
    """A bit for each kind of access that this version handles."""
    known = max((count for since, count in kinds if version >= since), default=0)
    return (1 << known) - 1
