"""How the worker comes by decoding processes, and how it gets rid of them.

The worker itself never forks: it has threads and a model in memory. It keeps one `decode_server` and asks that
for a process per video.
"""

import atexit
import logging
import os
import socket
import subprocess
import sys
import threading
from contextlib import ExitStack, suppress
from pathlib import Path

from workers.decode_wire import END_ALL, PROCESS_DESCRIPTORS, START, STATUS

log = logging.getLogger("visum.decode")

_PACKAGE_ROOT = Path(__file__).resolve().parent.parent
_END_S = 10.0
_CLOSE_S = 2.0
_LAST_WORDS_S = 1.0
_WORDS_BYTES = 1 << 12


class DecodeProcess:
    """One decoding process: `link` is the worker's end of what `decode_wire` describes."""

    def __init__(self, server: "DecodeServer", link: socket.socket, words: int, leash: socket.socket) -> None:
        self.link = link
        self._server = server
        self._words = words
        self._leash = leash
        self.killed = False
        """Whether it was ended before it did so by itself."""

    def end(self) -> int | None:
        """Kill the process if it still runs, and wait until it is gone: its exit status, None if that is lost.

        A status below 0 is a signal's number, and -9 usually our own.
        """
        self.killed = True
        with suppress(OSError):
            self._leash.shutdown(socket.SHUT_WR)  # seen at the other end whoever else may hold this one
        try:
            return self._status(_END_S)
        except TimeoutError:  # the server hangs: it and what it started go together
            self._server.close()
            return None

    def _status(self, timeout_s: float) -> int | None:
        """The exit status, once the process has ended by itself or was ended; None if it went with the server.

        Raises:
            TimeoutError: the process still runs.
        """
        self._leash.settimeout(timeout_s)
        try:
            status = self._leash.recv(STATUS.size, socket.MSG_WAITALL)
        except ConnectionError:
            return None
        return STATUS.unpack(status)[0] if len(status) == STATUS.size else None

    def give_up(self) -> tuple[int | None, str]:
        """End a process that did what it should not: its exit status and its last words. `killed` if it still ran.

        The server goes with it, once the other videos are done: the processes of one server share the layout of
        their memory, and nobody is to learn it by trying.
        """
        self._server.retire()
        try:
            status = self._status(_LAST_WORDS_S)
        except TimeoutError:
            status = self.end()
        os.set_blocking(self._words, False)
        with suppress(BlockingIOError):
            return status, os.read(self._words, _WORDS_BYTES).decode(errors="replace").strip()
        return status, ""

    def close(self) -> None:
        """End the process and let go of everything that belongs to it."""
        self.end()
        self.link.close()
        self._leash.close()
        os.close(self._words)


class DecodeServer:
    """The one program that starts decoding processes for this worker; started when first needed, and again if it died.

    Safe to use from any thread.
    """

    def __init__(self, package_root: Path = _PACKAGE_ROOT) -> None:
        self._package_root = package_root
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._retired: list[subprocess.Popen[bytes]] = []
        self.deaths = 0
        """Programs that ended otherwise than they should."""

    def start(self, video: int) -> DecodeProcess:
        """A new process that has the descriptor `video`; it waits for its REQUEST.

        Raises:
            OSError: if no process can be started.
        """
        with ExitStack() as kept, ExitStack() as passed_on:
            ours, theirs = socket.socketpair()
            kept.enter_context(ours)
            passed_on.enter_context(theirs)
            leash, their_leash = socket.socketpair()
            kept.enter_context(leash)
            passed_on.enter_context(their_leash)
            words, their_words = os.pipe()
            kept.callback(os.close, words)
            passed_on.callback(os.close, their_words)
            descriptors = [video, theirs.fileno(), their_words, their_leash.fileno()]
            assert len(descriptors) == PROCESS_DESCRIPTORS
            with self._lock:
                try:
                    socket.send_fds(self._running(), [START], descriptors)
                except ConnectionError:  # it died since the last video
                    self._retire()
                    socket.send_fds(self._running(), [START], descriptors)
            kept.pop_all()
            return DecodeProcess(self, ours, words, leash)

    @property
    def pid(self) -> int | None:
        """The program's process id, None while it does not run."""
        return None if self._process is None else self._process.pid

    def warm(self) -> None:
        """Start the program now, so that the first video does not wait for it."""
        with self._lock:
            self._running()

    def retire(self) -> None:
        """Let the program end with the last of its processes; the next video gets a new one."""
        with self._lock:
            self._retire()

    def close(self) -> None:
        """End the program, and with it every process that it started."""
        with self._lock:
            if self._control is not None:
                with suppress(OSError):
                    self._control.send(END_ALL)
            self._retire()
            for process in self._retired:
                try:
                    process.wait(timeout=_CLOSE_S)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
            self._collect()

    def _running(self) -> socket.socket:
        """The socket of a program that runs."""
        self._collect()
        if self._process is not None and self._process.poll() is not None:
            self._retire()
        if self._control is None:
            ours, theirs = socket.socketpair()
            with theirs:
                self._process = self._program(theirs)
            self._control = ours
        return self._control

    def _collect(self) -> None:
        """Let go of programs that have ended."""
        for process in [process for process in self._retired if process.poll() is not None]:
            self._retired.remove(process)
            if process.returncode:
                self.deaths += 1
                log.warning("the program that starts decoding ended with status %d", process.returncode)

    def _program(self, control: socket.socket) -> subprocess.Popen[bytes]:
        """In an environment that holds none of our settings, with no file of ours but the socket."""
        environment = {"PYTHONPATH": str(self._package_root), "LC_ALL": "C.UTF-8", "PATH": os.defpath}
        return subprocess.Popen(
            [sys.executable, "-P", "-s", "-m", "workers.decode_server", str(os.getpid())],
            stdin=control,
            stdout=subprocess.DEVNULL,
            env=environment,
            cwd="/",
        )

    def _retire(self) -> None:
        if self._control is not None:
            with suppress(OSError):
                self._control.shutdown(socket.SHUT_WR)
            self._control.close()
            self._control = None
        if self._process is not None:
            self._retired.append(self._process)
            self._process = None


SERVER = DecodeServer()
"""This worker's."""
atexit.register(SERVER.close)
