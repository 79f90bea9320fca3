"""The supervisor, over real child processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from visum.errors import CliError
from visum.supervisor import Child, Supervisor, describe_exit

SLEEPER = "import time; time.sleep(600)"
DEAF = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("up", flush=True)
time.sleep(600)
"""
CLOSES_IN_ORDER = """
import signal, sys, time
def end(*_):
    with open(sys.argv[1], "a") as log:
        log.write(sys.argv[2] + " ")
    sys.exit(0)
signal.signal(signal.SIGTERM, end)
print("up", flush=True)
time.sleep(600)
"""


def start(code: str, *arguments: str, wait: bool = False) -> Callable[[], subprocess.Popen[bytes]]:
    def run() -> subprocess.Popen[bytes]:
        process = subprocess.Popen([sys.executable, "-c", code, *arguments], stdout=subprocess.PIPE)
        assert process.stdout is not None
        if wait:
            process.stdout.readline()
        process.stdout.close()
        return process

    return run


def signal_when(condition: Callable[[], bool], number: int = signal.SIGTERM) -> threading.Thread:
    """Send this process a signal as soon as the condition holds; after 30 s in any case."""

    def watch() -> None:
        deadline = time.monotonic() + 30
        while not condition() and time.monotonic() < deadline:
            time.sleep(0.02)
        os.kill(os.getpid(), number)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    return thread


def test_a_child_that_was_killed_is_started_again() -> None:
    pids: list[int] = []
    said: list[str] = []
    sleep = start(SLEEPER)

    def note() -> subprocess.Popen[bytes]:
        process = sleep()
        pids.append(process.pid)
        return process

    supervisor = Supervisor([Child("sleeper", note)], ready=lambda: True, say=said.append)
    signal_when(lambda: len(pids) == 2)
    supervisor.run(on_ready=lambda: os.kill(pids[0], signal.SIGKILL))

    assert len(pids) == 2
    assert any(f"the sleeper (pid {pids[0]}) ended: signal SIGKILL" in line for line in said)


def test_a_child_that_keeps_dying_before_the_service_is_ready_ends_it() -> None:
    supervisor = Supervisor(
        [Child("gateway", start("raise SystemExit(3)"))], ready=lambda: False, say=lambda line: None
    )
    with pytest.raises(CliError, match=r"The gateway ended 3 times .*exit code 3"):
        supervisor.run(on_ready=lambda: None)


def test_children_of_a_higher_stop_order_end_after_the_others(tmp_path: Path) -> None:
    log = tmp_path / "ends"
    children = [
        Child("queue", start(CLOSES_IN_ORDER, str(log), "queue", wait=True), stop_order=1),
        Child("worker", start(CLOSES_IN_ORDER, str(log), "worker", wait=True)),
    ]
    supervisor = Supervisor(children, ready=lambda: True, say=lambda line: None)
    supervisor.run(on_ready=lambda: os.kill(os.getpid(), signal.SIGTERM))
    assert log.read_text().split() == ["worker", "queue"]


def test_a_child_that_does_not_drain_in_time_is_killed() -> None:
    said: list[str] = []
    supervisor = Supervisor(
        [Child("worker", start(DEAF, wait=True), drain_s=0.5)], ready=lambda: True, say=said.append
    )
    supervisor.run(on_ready=lambda: os.kill(os.getpid(), signal.SIGTERM))
    assert said[-1].endswith("did not end in time and is killed")


def test_a_second_signal_cuts_the_drain_short() -> None:
    supervisor = Supervisor(
        [Child("worker", start(DEAF, wait=True), drain_s=300)], ready=lambda: True, say=print
    )
    second = threading.Timer(0.5, lambda: os.kill(os.getpid(), signal.SIGINT))
    began = time.monotonic()
    second.start()
    supervisor.run(on_ready=lambda: os.kill(os.getpid(), signal.SIGINT))
    assert time.monotonic() - began < 30


def test_the_death_of_a_child_is_reported_with_its_pid() -> None:
    died: list[int] = []
    child = Child("worker", start(SLEEPER), on_death=died.append)
    supervisor = Supervisor([child], ready=lambda: True, say=lambda line: None)
    pids: list[int] = []

    def end() -> None:
        assert child.process is not None
        pids.append(child.process.pid)
        os.kill(os.getpid(), signal.SIGTERM)

    supervisor.run(on_ready=end)
    assert died == pids


def test_the_signal_handlers_are_given_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    supervisor = Supervisor([Child("worker", start(SLEEPER))], ready=lambda: True, say=lambda line: None)
    supervisor.run(on_ready=lambda: os.kill(os.getpid(), signal.SIGTERM))
    assert signal.getsignal(signal.SIGTERM) is before


def test_an_exit_is_told_in_words() -> None:
    assert describe_exit(2) == "exit code 2"
    assert describe_exit(-9) == "signal SIGKILL"
