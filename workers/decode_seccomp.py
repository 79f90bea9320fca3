"""The system calls that decoding needs, and none besides: a seccomp filter, in the kernel's own BPF.

https://docs.kernel.org/userspace-api/seccomp_filter.html. Written out here because the list is short and libseccomp is
not everywhere. What is not allowed fails with EPERM, as FFmpeg expects of a machine that says no.
"""

import ctypes
import errno
import os
import struct
from dataclasses import dataclass

from workers.decode_libc import call

_ARCHITECTURES = {"x86_64": (0xC000003E, 0), "aarch64": (0xC00000B7, 1)}
"""The kernel's AUDIT_ARCH number, and the column of the tables below."""

_ALLOWED = {
    # the video, the link and the last words, all open before
    "read": (0, 63),
    "write": (1, 64),
    "writev": (20, 66),
    "lseek": (8, 62),
    "close": (3, 57),
    "fstat": (5, 80),
    "sendto": (44, 206),  # without socket and connect it reaches nobody but the worker
    "recvfrom": (45, 207),
    "recvmsg": (47, 212),
    # memory
    "brk": (12, 214),
    "munmap": (11, 215),
    "mremap": (25, 216),
    "madvise": (28, 233),
    # threads
    "futex": (202, 98),
    "set_robust_list": (273, 99),
    "rseq": (334, 293),
    "sched_yield": (24, 124),
    "sched_getaffinity": (204, 123),
    "getpid": (39, 172),
    "gettid": (186, 178),
    "rt_sigaction": (13, 134),
    "rt_sigprocmask": (14, 135),
    "rt_sigreturn": (15, 139),
    "restart_syscall": (219, 128),
    "exit": (60, 93),
    "exit_group": (231, 94),
    # clocks, and the random numbers that hash tables are seeded with
    "gettimeofday": (96, 169),
    "clock_gettime": (228, 113),
    "nanosleep": (35, 101),
    "clock_nanosleep": (230, 115),
    "getrandom": (318, 278),
}
_CLONE3 = (435, 435)

_CLONE_THREAD = 0x00010000
_PROT_EXEC = 4
_F_DUPFD_CLOEXEC = 1030
_PR_SET_NAME = 15
_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 22, 2

_LOAD, _EQUAL, _ANY_BIT, _RETURN = 0x20, 0x15, 0x45, 0x06
_NUMBER_AT, _ARCHITECTURE_AT, _ARGUMENTS_AT = 0, 4, 16
_KILL_PROCESS, _ALLOW, _REFUSE = 0x80000000, 0x7FFF0000, 0x00050000


@dataclass(frozen=True)
class _Argued:
    """A system call that is allowed where one argument says so: where it equals `value`, or has a bit of it."""

    numbers: tuple[int, int]
    argument: int
    test: int
    value: int
    allowed: bool = True


def filter_calls() -> None:
    """From here on only the system calls listed above reach the kernel. Needs no_new_privs.

    Raises:
        OSError: the kernel has no seccomp filters, or the machine's numbers are not known here.
    """
    program = _program(os.uname().machine, os.getpid())
    instructions = ctypes.create_string_buffer(program, len(program))
    pointer = ctypes.cast(instructions, ctypes.c_void_p)
    call(
        "prctl",
        _PR_SET_SECCOMP,
        _SECCOMP_MODE_FILTER,
        ctypes.byref(_Program(len(program) // 8, pointer)),
        0,
        0,
    )


class _Program(ctypes.Structure):
    """struct sock_fprog"""

    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_void_p))


def _program(machine: str, pid: int) -> bytes:
    """The filter of a process, eight bytes an instruction. Jumps go forward, over so many instructions."""
    if machine not in _ARCHITECTURES:
        raise OSError(f"the system calls of {machine} are not known here")
    architecture, column = _ARCHITECTURES[machine]
    lines = [
        _line(_LOAD, _ARCHITECTURE_AT),
        _line(_EQUAL, architecture, then=1),
        _line(_RETURN, _KILL_PROCESS),  # another architecture's numbers: 32-bit calls on a 64-bit machine
        _line(_LOAD, _NUMBER_AT),
    ]
    for numbers in _ALLOWED.values():
        lines += [_line(_EQUAL, numbers[column], otherwise=1), _line(_RETURN, _ALLOW)]
    # Its flags can't be looked into: glibc then falls back to clone, whose can.
    lines += [_line(_EQUAL, _CLONE3[column], otherwise=1), _line(_RETURN, _REFUSE | errno.ENOSYS)]
    for rule in _argued(pid):
        verdicts = (_ALLOW, _REFUSE | errno.EPERM)
        yes, no = verdicts if rule.allowed else reversed(verdicts)
        lines += [
            _line(_EQUAL, rule.numbers[column], otherwise=4),
            _line(_LOAD, _ARGUMENTS_AT + 8 * rule.argument),
            _line(rule.test, rule.value, otherwise=1),
            _line(_RETURN, yes),
            _line(_RETURN, no),
        ]
    lines.append(_line(_RETURN, _REFUSE | errno.EPERM))
    return b"".join(lines)


def _argued(pid: int) -> list[_Argued]:
    return [
        _Argued((56, 220), 0, _ANY_BIT, _CLONE_THREAD),  # clone: threads, no processes
        _Argued((9, 222), 2, _ANY_BIT, _PROT_EXEC, allowed=False),  # mmap, and
        _Argued((10, 226), 2, _ANY_BIT, _PROT_EXEC, allowed=False),  # mprotect: nothing new to be executed
        _Argued((72, 25), 1, _EQUAL, _F_DUPFD_CLOEXEC),  # fcntl: Python's mmap keeps a descriptor of its own
        _Argued((157, 167), 0, _EQUAL, _PR_SET_NAME),  # prctl: FFmpeg names its threads
        _Argued((234, 131), 0, _EQUAL, pid),  # tgkill: abort() ends this process and no other
    ]


def _line(code: int, value: int, *, then: int = 0, otherwise: int = 0) -> bytes:
    """struct sock_filter"""
    return struct.pack("=HBBI", code, then, otherwise, value)
