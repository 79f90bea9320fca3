"""Decoding processes: started by one server, each on its own, and none left behind whatever ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import pytest

from contract.errors import JobFailure
from tests.workers.decoders import stand_in
from tests.workers.videos import write_video
from workers.decode import decode
from workers.decode_process import SERVER, DecodeServer
from workers.frame_plan import FramePlan

PLAN = FramePlan(max_frames=16, size_multiple=8, frame_pixels=48 * 64)
T = TypeVar("T")
WAITS = (
    "import time; from workers.decode_sandbox import confine\n"
    "confine(memory_bytes=1 << 30, cpu_s=60, parent_pid=server)\n"
    "time.sleep(60)"
)
linux_only = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")


@pytest.fixture
def video(tmp_path: Path) -> Path:
    return write_video(tmp_path / "clip.mp4", 1)


@pytest.fixture
def server() -> Iterator[DecodeServer]:
    server = DecodeServer()
    yield server
    server.close()


@linux_only
def test_no_decoding_process_is_left_behind(video: Path) -> None:
    for _ in range(3):
        decode(video, PLAN)
    (program,) = _started_programs()
    assert _children(program) == set()


@linux_only
def test_one_program_starts_the_processes_of_all_videos(video: Path) -> None:
    decode(video, PLAN)
    before = _started_programs()
    with ThreadPoolExecutor(4) as pool:
        videos = list(pool.map(lambda _: decode(video, PLAN), range(8)))
    assert _started_programs() == before
    assert all((video.frames == videos[0].frames).all() for video in videos)


@linux_only
def test_a_program_outlives_the_thread_that_started_it(video: Path, server: DecodeServer) -> None:
    thread = threading.Thread(target=server.warm)
    thread.start()
    thread.join()
    with video.open("rb") as source:
        process = server.start(source.fileno())
        assert process.end() == -signal.SIGKILL
        process.close()


@linux_only
def test_a_killed_program_is_started_again(video: Path) -> None:
    decode(video, PLAN)
    (program,) = _started_programs()
    os.kill(program, signal.SIGKILL)
    _until(lambda: not _runs(program))
    assert len(decode(video, PLAN).frames) == 4
    assert _started_programs() != {program}


@linux_only
def test_processes_of_a_killed_program_end(tmp_path: Path, video: Path) -> None:
    with stand_in(tmp_path, WAITS) as server, video.open("rb") as source:
        process = server.start(source.fileno())
        program = server.pid
        (started,) = _until(lambda: _children(program))
        os.kill(program, signal.SIGKILL)
        _until(lambda: not _runs(started))
        assert process.end() is None
        process.close()


@linux_only
@pytest.mark.parametrize("leave", ["os.kill(os.getpid(), 9)", "os._exit(0)", "sys.exit()"])
def test_a_worker_that_ends_leaves_neither_program_nor_process(
    tmp_path: Path, video: Path, leave: str
) -> None:
    worker = (
        "import os, sys, pathlib\n"
        "from tests.workers.decoders import stand_in\n"
        f"context = stand_in(pathlib.Path({str(tmp_path)!r}), {WAITS!r})\n"
        "server = context.__enter__()\n"
        f"process = server.start(os.open({str(video)!r}, os.O_RDONLY))\n"
        "print(server.pid, flush=True)\n"
        "sys.stdin.readline()\n"
        f"{leave}\n"
    )
    with subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", worker],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    ) as running:
        program = int(running.stdout.readline())
        (started,) = _until(lambda: _children(program))
        running.communicate("\n")
    _until(lambda: not _runs(program) and not _runs(started))


@linux_only
def test_a_process_that_crashed_costs_its_program(tmp_path: Path, video: Path, monkeypatch) -> None:
    with stand_in(tmp_path, "import os; os.kill(os.getpid(), 11)") as server:
        monkeypatch.setattr("workers.decode.SERVER", server)
        server.warm()
        crashed = server.pid
        with pytest.raises(JobFailure):
            decode(video, PLAN)
        server.warm()
        assert server.pid != crashed
        _until(lambda: not _runs(crashed) or _is_zombie(crashed))


@linux_only
def test_a_process_holds_its_video_its_link_and_its_last_words_alone(tmp_path: Path, video: Path) -> None:
    program = "import os, time\nos.write(2, ' '.join(os.listdir('/proc/self/fd')).encode())\ntime.sleep(60)"
    with stand_in(tmp_path, program) as server, video.open("rb") as source:
        first, second = (server.start(source.fileno()) for _ in range(2))
        words = os.read(second._words, 1 << 10).decode()
        assert set(words.split()) == {"0", "1", "2", "3"}  # the last one is that of the look itself
        first.close()
        second.close()


def test_an_interrupt_from_the_keyboard_is_left_to_the_worker(tmp_path: Path, video: Path) -> None:
    program = "import os, signal\nos.kill(os.getpid(), signal.SIGINT); os.kill(os.getppid(), signal.SIGINT)"
    with stand_in(tmp_path, program) as server, video.open("rb") as source:
        process = server.start(source.fileno())
        assert process.link.recv(1) == b""
        assert process.end() == 0
        process.close()


def test_the_exit_status_and_the_last_words_of_a_process_are_known(tmp_path: Path, video: Path) -> None:
    with stand_in(tmp_path, "raise ValueError('bad luck')") as server, video.open("rb") as source:
        process = server.start(source.fileno())
        assert process.link.recv(1) == b""
        status, words = process.give_up()
        process.close()
    assert status == 1
    assert words.endswith("ValueError: bad luck")


def test_closing_takes_the_processes_with_it(tmp_path: Path, video: Path) -> None:
    with stand_in(tmp_path, WAITS) as server, video.open("rb") as source:
        process = server.start(source.fileno())
        server.close()
        assert process.link.recv(1) == b""
        process.close()


def _started_programs() -> set[int]:
    """The servers among this process's children; the shared one alone, if no test left another."""
    assert SERVER.pid is not None
    return {SERVER.pid} & _children(os.getpid())


def _children(pid: int) -> set[int]:
    """The ids of a process's children, ended ones that nobody waited for among them."""
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    return {int(child) for task in tasks for child in task.read_text().split()}


def _runs(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists() and not _is_zombie(pid)


def _is_zombie(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return False


def _until(look: Callable[[], T]) -> T:
    """What `look` finds, once it is something."""
    deadline = time.monotonic() + 10
    while not (found := look()):
        assert time.monotonic() < deadline, "nothing happened"
        time.sleep(0.01)
    return found
