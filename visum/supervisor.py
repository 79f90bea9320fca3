"""Keeps the processes of `visum serve` alive and ends them in order.

A child that dies is started again, after a pause that doubles up to 30 s and falls back once the child has
stayed up for a minute. A child that dies again and again before the service was ever ready ends the whole:
then the setup is wrong, and restarting would hide it. At SIGTERM or SIGINT every child gets SIGTERM and time
to drain, those of a lower `stop_order` first; a second signal cuts that time to two seconds.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import FrameType

from visum.errors import CliError

FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 30.0
STEADY_S = 60.0
DEATHS_AT_START = 3
HURRY_S = 2.0
TICK_S = 0.1

Start = Callable[[], subprocess.Popen[bytes]]
Say = Callable[[str], None]


@dataclass
class Child:
    """One process to keep alive. `process` and the fields after it are the supervisor's."""

    name: str
    start: Start
    drain_s: float = 60.0  # what it gets to end by itself after SIGTERM
    stop_order: int = 0  # children of a lower order are ended, and waited for, before those of a higher one
    on_death: Callable[[int], None] = lambda pid: None
    process: subprocess.Popen[bytes] | None = None
    pause_s: float = FIRST_PAUSE_S
    started_at: float = 0.0
    restart_at: float = 0.0
    deaths: int = field(default=0)


class Supervisor:
    """Starts children, restarts the dead, ends all. Lives in the main thread, which owns the signals."""

    def __init__(self, children: Sequence[Child], *, ready: Callable[[], bool], say: Say) -> None:
        self.children = list(children)
        self._ready = ready
        self._say = say
        self._signals = 0
        self.was_ready = False

    def run(self, on_ready: Callable[[], None]) -> None:
        """Run until a signal arrives; `on_ready` is called once, when the service first answers.

        Raises:
            CliError: a child kept dying before the service was ready.
        """
        before = {
            number: signal.signal(number, self._on_signal) for number in (signal.SIGINT, signal.SIGTERM)
        }
        try:
            for child in self.children:
                self._start(child)
            while not self._signals:
                self._tick(on_ready)
                time.sleep(TICK_S)
        finally:
            self._stop()
            for number, handler in before.items():
                signal.signal(number, handler)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._signals += 1

    def _tick(self, on_ready: Callable[[], None]) -> None:
        now = time.monotonic()
        for child in self.children:
            if child.process is None:
                if now >= child.restart_at:
                    self._start(child)
            elif child.process.poll() is not None:
                self._note_death(child, now)
            elif now - child.started_at > STEADY_S:
                child.pause_s, child.deaths = FIRST_PAUSE_S, 0
        if not self.was_ready and self._ready():
            self.was_ready = True
            on_ready()

    def _start(self, child: Child) -> None:
        child.process = child.start()
        child.started_at = time.monotonic()

    def _note_death(self, child: Child, now: float) -> None:
        assert child.process is not None
        code, pid = child.process.returncode, child.process.pid
        child.process = None
        child.on_death(pid)
        child.deaths += 1
        if not self.was_ready and child.deaths >= DEATHS_AT_START:
            raise CliError(
                f"The {child.name} ended {child.deaths} times before all was ready ({describe_exit(code)})",
                "Its own message is above.",
            )
        child.restart_at = now + child.pause_s
        self._say(f"the {child.name} (pid {pid}) ended: {describe_exit(code)}; again in {child.pause_s:g} s")
        child.pause_s = min(2 * child.pause_s, LONGEST_PAUSE_S)

    def _stop(self) -> None:
        for order in sorted({child.stop_order for child in self.children}):
            alive = [
                child for child in self.children if child.stop_order == order and child.process is not None
            ]
            now = time.monotonic()
            for child in alive:
                _send(child.process, signal.SIGTERM)
            for child in alive:
                self._wait(child, now + child.drain_s)

    def _wait(self, child: Child, deadline: float) -> None:
        process = child.process
        assert process is not None
        hurried = False
        while process.poll() is None:
            if self._signals > 1 and not hurried:
                hurried = True
                deadline = min(deadline, time.monotonic() + HURRY_S)
            if time.monotonic() > deadline:
                self._say(f"the {child.name} (pid {process.pid}) did not end in time and is killed")
                _send(process, signal.SIGKILL)
                process.wait()
            else:
                time.sleep(TICK_S / 4)
        child.on_death(process.pid)
        child.process = None


def _send(process: subprocess.Popen[bytes] | None, number: signal.Signals) -> None:
    if process is not None and process.poll() is None:
        os.kill(process.pid, number)


def describe_exit(code: int) -> str:
    """`exit code 3`, or the name of the signal that ended the process."""
    return f"exit code {code}" if code >= 0 else f"signal {signal.Signals(-code).name}"
