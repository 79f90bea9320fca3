"""The program that starts the decoding processes: `python -m workers.decode_server WORKER_PID`.

An interpreter with FFmpeg takes over 100 ms to start, so one is started and forks a process per video. It has no
threads, no torch, no file of ours and none of our settings, and never looks at a video itself.

Its standard input is a socket. START on it asks for a process and brings four descriptors: the video, the
link that the process speaks `decode_wire` over, a pipe for its last words, and a leash. A leash let go of by the
worker, which a killed worker does too, kills its process; a process that ended is collected and its exit status
sent up its leash. The end of standard input is the end of the program, once the last
process is gone; END_ALL speeds that up.
"""

import functools
import gc
import os
import resource
import selectors
import signal
import socket
import sys
import traceback
from contextlib import suppress
from typing import NoReturn

from workers import decode_child
from workers.decode_wire import END_ALL, PROCESS_DESCRIPTORS, STATUS

_ORPHAN_CHECK_S = 1.0
_OPEN_FILES = 256


def main() -> None:
    """Serve the worker whose process id is the first argument."""
    # Meant for the worker, which decides what becomes of its videos.
    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, signal.SIG_IGN)
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (_OPEN_FILES, most))  # no descriptor is above this
    gc.freeze()  # so that collecting in a process does not copy the pages it shares with this one
    with socket.socket(fileno=0) as control:
        _Server(control, int(sys.argv[1])).run()


class _Server:
    def __init__(self, control: socket.socket, worker_pid: int) -> None:
        self._control = control
        self._worker_pid = worker_pid
        self._leashes: dict[int, socket.socket] = {}  # by the process that hangs on it
        self._asked = True
        self._ending_all = False
        self._selector = selectors.DefaultSelector()
        self._wake, told = socket.socketpair()
        self._wake.setblocking(False)
        told.setblocking(False)
        self._told = told
        signal.signal(signal.SIGCHLD, lambda signum, frame: None)
        signal.set_wakeup_fd(told.fileno())

    def run(self) -> None:
        self._selector.register(self._control, selectors.EVENT_READ, self._start)
        self._selector.register(self._wake, selectors.EVENT_READ, lambda: self._wake.recv(1 << 10))
        while self._asked or self._leashes:
            for key, _ in self._selector.select(_ORPHAN_CHECK_S):
                key.data()
            self._reap()
            # Should a process that the worker forked hold the sockets open, this tells of its end.
            if os.getppid() != self._worker_pid:
                return self._end_all()

    def _start(self) -> None:
        asked, descriptors, _, _ = socket.recv_fds(self._control, 1, PROCESS_DESCRIPTORS)
        if not asked:
            self._asked = False
            self._selector.unregister(self._control)
        elif len(descriptors) == PROCESS_DESCRIPTORS:
            video, link, words, leash = descriptors
            server = os.getpid()
            try:
                pid = os.fork()
            except OSError:  # too many processes, or too little memory: the worker sees the link close
                pid = -1
            if pid == 0:
                _become(video, link, words, server)
            if pid > 0:
                self._leashes[pid] = socket.socket(fileno=leash)
                self._selector.register(leash, selectors.EVENT_READ, functools.partial(self._kill, pid))
                descriptors = [video, link, words]
        elif asked == END_ALL:
            self._end_all()
        for descriptor in descriptors:
            os.close(descriptor)

    def _end_all(self) -> None:
        """Nothing is said up the leashes: a process that was ended with the others has not failed."""
        self._ending_all = True
        for pid in self._leashes:
            os.kill(pid, signal.SIGKILL)

    def _kill(self, pid: int) -> None:
        """Not yet collected, so that the id is still this process's."""
        self._selector.unregister(self._leashes[pid])
        os.kill(pid, signal.SIGKILL)

    def _reap(self) -> None:
        for pid in list(self._leashes):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if not ended:
                continue
            leash = self._leashes.pop(pid)
            with suppress(KeyError):  # killed: no longer watched
                self._selector.unregister(leash)
            if not self._ending_all:
                with suppress(OSError):  # the worker may not be there to hear it
                    leash.send(STATUS.pack(os.waitstatus_to_exitcode(status)))
            leash.close()


def _become(video: int, link: int, words: int, server: int) -> NoReturn:
    """From here on this is the decoding process. It keeps nothing that leads to the worker or to another video."""
    status = 1
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for place, descriptor in enumerate((video, link, words)):
            os.dup2(descriptor, place)
        os.closerange(3, _OPEN_FILES)
        decode_child.main(server)
        status = 0
    except SystemExit as leaving:
        status = int(leaving.code or 0)
    except BaseException:  # whatever it is must not unwind into the server's own frames
        traceback.print_exc()
    finally:
        with suppress(OSError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)


if __name__ == "__main__":
    main()
