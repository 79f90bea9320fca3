"""A decoding process alone: namespaces of its own with no network and an empty root, and no rights left in them."""

import ctypes
import os
import resource

from workers.decode_libc import call

_NEWNS, _NEWUTS, _NEWIPC, _NEWUSER, _NEWNET = 0x00020000, 0x04000000, 0x08000000, 0x10000000, 0x40000000
_MS_RDONLY, _MS_NOSUID, _MS_NODEV, _MS_NOEXEC = 1, 2, 4, 8
_MS_REC, _MS_PRIVATE = 0x4000, 1 << 18
_MNT_DETACH = 2
_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}  # the C library has no function for it
_OVER = b"/tmp"  # any folder: what is mounted over it is seen in this namespace only, and becomes its root
_CAPABILITY_VERSION_3 = 0x20080522
_PR_SET_NO_NEW_PRIVS = 38
_NOBODY = 65534
_MOST_TASKS = 64
_COUNTED_PER_NAMESPACE = (5, 14)
"""Since this Linux, RLIMIT_NPROC counts a user's tasks in one user namespace; before, all that he has anywhere."""


def become_nobody() -> None:
    """Never again root, nor in any group, if this process was.

    Raises:
        PermissionError: root is not allowed to be somebody else here, in a container without CAP_SETUID.
    """
    if os.geteuid() == 0:
        os.setgroups([])
        os.setresgid(_NOBODY, _NOBODY, _NOBODY)
        os.setresuid(_NOBODY, _NOBODY, _NOBODY)


def leave_everything() -> None:
    """Namespaces of its own: no network, no files but an empty folder that can't be written, a bound on threads.

    Raises:
        OSError: the kernel, or a container's policy, has no user namespaces for us.
    """
    call("unshare", _NEWUSER | _NEWNET | _NEWNS | _NEWIPC | _NEWUTS)
    if _kernel() >= _COUNTED_PER_NAMESPACE:
        resource.setrlimit(resource.RLIMIT_NPROC, (_MOST_TASKS, _MOST_TASKS))
    call("mount", None, b"/", None, _MS_REC | _MS_PRIVATE, None)
    flags = _MS_RDONLY | _MS_NOSUID | _MS_NODEV | _MS_NOEXEC
    call("mount", b"none", _OVER, b"tmpfs", flags, b"size=4k,mode=555")
    os.chdir(_OVER)
    call("syscall", _pivot_root(), b".", b".")
    call("umount2", b".", _MNT_DETACH)
    os.chdir("/")


def drop_capabilities() -> None:
    """No capability is left, and no program that could be run would bring one.

    Raises:
        OSError: the kernel refused.
    """
    call("prctl", _PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    call("capset", header, (ctypes.c_uint32 * 6)())


def _kernel() -> tuple[int, ...]:
    return tuple(int(part) for part in os.uname().release.split("-")[0].split(".")[:2])


def _pivot_root() -> int:
    machine = os.uname().machine
    if machine not in _PIVOT_ROOT:
        raise OSError(f"the system calls of {machine} are not known here")
    return _PIVOT_ROOT[machine]
