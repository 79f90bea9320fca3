"""The sandbox: what a decoding process tries and may not. Each layer alone, by processes that really try it."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.workers.decoders import stand_in
from workers.decode_libc import call
from workers.decode_probe import missing_layers
from workers.decode_sandbox import Layer

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the layers are Linux's")

LANDLOCK_NETWORK, LANDLOCK_SIGNALS = 4, 6
"""The version of Landlock since which it knows of these."""

IMPORTS = """
import ctypes, errno, mmap, os, resource, signal, socket, threading, time
from workers import decode_sandbox
from workers.decode_libc import call
"""
WITHOUT = {
    Layer.SECCOMP: "decode_sandbox.filter_calls = lambda: None",
    Layer.LANDLOCK: "decode_sandbox.open_nothing = lambda: None",
    Layer.NAMESPACES: "decode_sandbox.leave_everything = lambda: None",
    Layer.PRIVILEGES: "decode_sandbox.become_nobody = lambda: None",
    Layer.LIMITS: "decode_sandbox._limits = lambda *_: ()",
}
TOGETHER = "decode_sandbox.confine(memory_bytes=1 << 30, cpu_s=60, parent_pid=os.getppid())"
"""What a decoding process does."""


def _alone(layer: Layer) -> str:
    """The same with no layer but one. Threads are not counted for root: their bound needs the other layer too."""
    kept = {layer} | ({Layer.PRIVILEGES} if layer is Layer.NAMESPACES else set())
    return "; ".join([*(WITHOUT[other] for other in Layer if other not in kept), TOGETHER])


OPEN = "os.open(FILE, os.O_RDONLY)"
CREATE = "os.open(FOLDER + '/new', os.O_CREAT | os.O_WRONLY)"
LIST = "os.listdir(FOLDER)"
FORK = "os.fork() or os._exit(0)"
RUN = "os.waitpid(os.posix_spawn('/bin/true', ['true'], {}), 0)"
SIGNAL = "os.kill(os.getppid(), 0)"
TRACE = "call('ptrace', 0, 0, 0, 0)"
MAP_CODE = "mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_EXEC)"
PAGE = "page = mmap.mmap(-1, 4096)"
MAKE_CODE = "call('mprotect', ctypes.addressof(ctypes.c_char.from_buffer(page)), 4096, mmap.PROT_READ | mmap.PROT_EXEC)"
EXECUTE = "os.execv('/bin/sh', ['sh', '-c', 'echo done >&2'])"
READ_ANOTHERS = "call('process_vm_readv', os.getppid(), 0, 0, 0, 0, 0)"
OPEN_ANEW = "call('syscall', 437, -100, b'/', ctypes.create_string_buffer(24), 24)"
URING = "call('syscall', 425, 1, ctypes.create_string_buffer(120))"
NEW_SOCKET = "socket.socket()"
SOCKET = "way = socket.socket()"
CONNECT = "way.connect(('127.0.0.1', PORT))"
HANDLE = "handle = os.open(FILE, os.O_WRONLY); signal.signal(signal.SIGXFSZ, signal.SIG_IGN)"
WRITE = "os.write(handle, b'x')"
ALLOCATE = "mmap.mmap(-1, 2 << 30)"
MANY_FILES = "[os.dup(0) for _ in range(20)]"
MANY_THREADS = "[threading.Thread(target=time.sleep, args=(1,), daemon=True).start() for _ in range(100)]"
BE_ROOT = "os.setuid(0)"
ANOTHER_NAMESPACE = "call('unshare', 0x10000000)"


@dataclass(frozen=True)
class Attempt:
    """`action` is tried within `layer`, after `before` was done outside of it, and refused with one of `refusals`."""

    layer: Layer
    action: str
    refusals: str
    before: str = "pass"
    landlock: int = 0

    def __str__(self) -> str:
        return f"{self.layer.value}: {self.action}"


ATTEMPTS = [
    Attempt(Layer.SECCOMP, OPEN, "EPERM"),
    Attempt(Layer.SECCOMP, CREATE, "EPERM"),
    Attempt(Layer.SECCOMP, LIST, "EPERM"),
    Attempt(Layer.SECCOMP, NEW_SOCKET, "EPERM"),
    Attempt(Layer.SECCOMP, CONNECT, "EPERM", before=SOCKET),
    Attempt(Layer.SECCOMP, FORK, "EPERM"),
    Attempt(Layer.SECCOMP, RUN, "EPERM"),
    Attempt(Layer.SECCOMP, SIGNAL, "EPERM"),
    Attempt(Layer.SECCOMP, TRACE, "EPERM"),
    Attempt(Layer.SECCOMP, MAP_CODE, "EPERM"),
    Attempt(Layer.SECCOMP, MAKE_CODE, "EPERM", before=PAGE),
    Attempt(Layer.SECCOMP, EXECUTE, "EPERM"),
    Attempt(Layer.SECCOMP, READ_ANOTHERS, "EPERM"),
    Attempt(Layer.SECCOMP, OPEN_ANEW, "EPERM"),
    Attempt(Layer.SECCOMP, URING, "EPERM"),
    Attempt(Layer.SECCOMP, ANOTHER_NAMESPACE, "EPERM"),
    Attempt(Layer.LANDLOCK, OPEN, "EACCES"),
    Attempt(Layer.LANDLOCK, CREATE, "EACCES"),
    Attempt(Layer.LANDLOCK, LIST, "EACCES"),
    Attempt(Layer.LANDLOCK, RUN, "EACCES"),
    Attempt(Layer.LANDLOCK, CONNECT, "EACCES", before=SOCKET, landlock=LANDLOCK_NETWORK),
    Attempt(Layer.LANDLOCK, SIGNAL, "EPERM", landlock=LANDLOCK_SIGNALS),
    Attempt(Layer.NAMESPACES, OPEN, "ENOENT"),
    Attempt(Layer.NAMESPACES, CREATE, "ENOENT"),
    Attempt(Layer.NAMESPACES, RUN, "ENOENT"),
    Attempt(Layer.NAMESPACES, "os.mkdir('/visum-new'); os.rmdir('/visum-new')", "EROFS EACCES"),
    Attempt(Layer.NAMESPACES, f"{SOCKET}; {CONNECT}", "ENETUNREACH"),
    Attempt(Layer.NAMESPACES, MANY_THREADS, "RuntimeError"),
    Attempt(Layer.PRIVILEGES, BE_ROOT, "EPERM"),
    Attempt(Layer.LIMITS, ALLOCATE, "ENOMEM"),
    Attempt(Layer.LIMITS, WRITE, "EFBIG", before=HANDLE),
    Attempt(Layer.LIMITS, MANY_FILES, "EMFILE"),
]


class Inside:
    """Tries things in decoding processes and says what became of them."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder = folder
        self._names = f"FILE, FOLDER, PORT = {str(folder / 'file')!r}, {str(folder)!r}, {port}\n"
        (folder / "file").write_text("secret")
        self._programs = 0

    def try_(self, action: str, *, enter: str = "pass", before: str = "pass") -> str:
        """`done`, or the name of the error that `action` ended with."""
        return self.try_all([(before, enter, action)])[0]

    def try_all(self, steps: list[tuple[str, str, str]]) -> list[str]:
        """The same of many (before, enter, action), each in a process of its own that one decoding process forks."""
        program = (
            IMPORTS
            + self._names
            + "".join(
                "if os.fork() == 0:\n"
                f"    {before}\n"
                f"    {enter}\n"
                f"    try: {action}; told = 'done'\n"
                "    except OSError as refusal: told = errno.errorcode[refusal.errno]\n"
                "    except (MemoryError, RuntimeError) as refusal: told = type(refusal).__name__\n"
                "    os.write(2, (told + '\\n').encode())\n"
                "    os._exit(0)\n"
                "if os.waitstatus_to_exitcode(os.wait()[1]): os.write(2, b'died\\n')\n"
                for before, enter, action in steps
            )
        )
        self._programs += 1
        folder = self.folder / str(self._programs)
        with stand_in(folder, program) as server, open(os.devnull, "rb") as nothing:
            process = server.start(nothing.fileno())
            words = b""
            while part := os.read(process._words, 1 << 12):
                words += part
            process.close()
        told = words.decode().splitlines()
        assert len(told) == len(steps), words.decode()
        return told


@pytest.fixture(scope="module")
def missing() -> dict[str, str]:
    return missing_layers()


@pytest.fixture(scope="module")
def inside(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Inside]:
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listening:
        yield Inside(tmp_path_factory.mktemp("inside"), listening.getsockname()[1])


@pytest.fixture(scope="module")
def told(inside: Inside) -> dict[tuple[Attempt, str], str]:
    """What became of each attempt outside of the sandbox, in its layer alone, and in all of them."""
    found = {}
    for enter, column in (
        (lambda _: "pass", "outside"),
        (_alone, "alone"),
        (lambda _: TOGETHER, "together"),
    ):
        steps = [(attempt.before, enter(attempt.layer), attempt.action) for attempt in ATTEMPTS]
        found |= {
            (attempt, column): words for attempt, words in zip(ATTEMPTS, inside.try_all(steps), strict=True)
        }
        # Whoever was let make it has left it there for the next one to be refused.
        (inside.folder / "new").unlink(missing_ok=True)
    return found


def test_no_picture_of_its_memory_is_left_where_it_dies(inside: Inside) -> None:
    dump = "resource.setrlimit(resource.RLIMIT_CORE, (4096, 4096))"
    asked = "resource.getrlimit(resource.RLIMIT_CORE) == (0, 0) or os.open('/dumped', os.O_RDONLY)"
    assert inside.try_(asked, before=dump) == "ENOENT"
    assert inside.try_(asked, enter=_alone(Layer.LIMITS), before=dump) == "done"


@pytest.mark.parametrize("attempt", ATTEMPTS, ids=str)
def test_a_layer_alone_refuses(
    attempt: Attempt, told: dict[tuple[Attempt, str], str], missing: dict[str, str]
) -> None:
    _skip_what_is_not_here(attempt, told, missing)
    assert told[attempt, "alone"] in attempt.refusals.split()


@pytest.mark.parametrize("attempt", ATTEMPTS, ids=str)
def test_all_layers_together_refuse(
    attempt: Attempt, told: dict[tuple[Attempt, str], str], missing: dict[str, str]
) -> None:
    _skip_what_is_not_here(attempt, told, missing)
    assert told[attempt, "together"] not in ("done", "died")


def _skip_what_is_not_here(
    attempt: Attempt, told: dict[tuple[Attempt, str], str], missing: dict[str, str]
) -> None:
    if attempt.layer in missing:
        pytest.skip(f"no {attempt.layer} here: {missing[attempt.layer]}")
    if attempt.landlock > _landlock_version():
        pytest.skip(f"needs version {attempt.landlock} of Landlock")
    if told[attempt, "outside"] != "done":
        pytest.skip(f"refused here without any layer too: {told[attempt, 'outside']}")


def test_no_connection_is_ever_made(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(0)
        inside = Inside(tmp_path, listening.getsockname()[1])
        assert inside.try_(CONNECT, before=SOCKET) == "done"
        listening.accept()[0].close()
        assert inside.try_(CONNECT, enter=TOGETHER, before=SOCKET) != "done"
        with pytest.raises(BlockingIOError):
            listening.accept()


def test_threads_are_allowed_in_all_layers(inside: Inside) -> None:
    start = "thread = threading.Thread(target=time.sleep, args=(0.01,)); thread.start(); thread.join()"
    assert inside.try_(start, enter=TOGETHER) == "done"


def test_root_is_nobody_inside(inside: Inside) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs a worker that runs as root")
    nobody = "assert set(os.getresuid() + os.getresgid()) == {65534} and not os.getgroups()"
    assert inside.try_(nobody, enter=_alone(Layer.PRIVILEGES)) == "done"


def test_no_capability_is_left_and_no_program_brings_one(inside: Inside, missing: dict[str, str]) -> None:
    if Layer.NAMESPACES in missing:
        pytest.skip("a namespace's owner has all of them; there is none here")
    header = "sets = (ctypes.c_uint32 * 6)(); call('capget', (ctypes.c_uint32 * 2)(0x20080522, 0), sets)"
    none = f"{header}; assert not any(sets) and call('prctl', 39, 0, 0, 0, 0) == 1"
    assert inside.try_(none, enter=_alone(Layer.NAMESPACES)) == "done"


def test_a_process_sees_none_of_the_workers_settings(inside: Inside, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VISUM_REDIS_URL", "redis://secret")
    assert inside.try_("assert not [name for name in os.environ if 'VISUM' in name]") == "done"


def _landlock_version() -> int:
    try:
        return call("syscall", 444, None, 0, 1)
    except OSError:
        return 0
