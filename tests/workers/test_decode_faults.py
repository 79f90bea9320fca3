"""Faults of the machine that decodes are tried again; they say nothing of the video."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from contract.errors import Code, JobFailure
from tests.workers.decoders import spoiled, stand_in
from tests.workers.videos import write_video
from workers.decode import decode
from workers.decode_process import DecodeServer
from workers.decode_sandbox import Layer, Missing
from workers.frame_plan import DecodeLimits, FramePlan
from workers.patience import Patience

PLAN = FramePlan(max_frames=16, size_multiple=8, frame_pixels=48 * 64)
LIMITED = "def leave(): raise OSError(28, 'No space left on device')\ndecode_sandbox.leave_everything = leave"
"""So it is where somebody has used up the user namespaces since the worker's start."""
BROKEN_DISK = "import os\nos.dup2(os.open('/proc/self/mem', os.O_RDONLY), 0)"
"""Reading at 0 of one's own memory is EIO."""
STALE_LATER = """
import io
reads = iter(range(100))
class Stale(io.FileIO):
    def read(self, size=-1, /):
        if next(reads) > 2: raise OSError(116, 'Stale file handle')
        return super().read(512)
real_child._StoredVideo.__bases__ = (Stale,)
"""
linux_only = pytest.mark.skipif(sys.platform != "linux", reason="Linux tells of it so")


@pytest.fixture
def video(tmp_path: Path) -> Path:
    return write_video(tmp_path / "clip.mp4", 2)


def _failure(video: Path, server: DecodeServer, limits: DecodeLimits | None = None) -> JobFailure:
    with pytest.raises(JobFailure) as failure:
        decode(video, PLAN, limits, server=server)
    return failure.value


@linux_only
def test_a_decoder_that_the_kernel_kills_for_its_memory_is_tried_again(tmp_path: Path, video: Path) -> None:
    with stand_in(tmp_path, "import os; os.kill(os.getpid(), 9)") as server:
        failure = _failure(video, server)
    assert (failure.code, failure.retryable) == (Code.DECODE_CRASHED, True)
    assert "damaged" not in failure.message


def test_a_decoder_that_we_kill_for_what_it_says_is_not(tmp_path: Path, video: Path) -> None:
    with stand_in(tmp_path, "import os, time; os.write(1, b'nonsense'); time.sleep(60)") as server:
        assert not _failure(video, server).retryable


@linux_only
@pytest.mark.parametrize("spoil", [BROKEN_DISK, STALE_LATER], ids=["from the start", "on the way"])
def test_a_video_that_its_disk_does_not_give_is_tried_again(tmp_path: Path, video: Path, spoil: str) -> None:
    with spoiled(tmp_path, spoil) as server:
        failure = _failure(video, server)
    assert (failure.code, failure.retryable) == (Code.INTERNAL_ERROR, True)
    assert failure.message.startswith("The stored video could not be read")


@linux_only
def test_a_layer_that_is_lost_after_the_start_is_told_with_the_frames(tmp_path: Path, video: Path) -> None:
    told: list[Missing] = []
    with spoiled(tmp_path, LIMITED) as server:
        assert len(decode(video, PLAN, on_missing=told.append, server=server).frames) == 4
    (missing,) = told
    assert "No space left on device" in missing[Layer.NAMESPACES]


@linux_only
def test_where_all_layers_are_required_a_lost_one_is_no_fault_of_the_video(
    tmp_path: Path, video: Path
) -> None:
    with spoiled(tmp_path, LIMITED) as server:
        failure = _failure(video, server, DecodeLimits(require_sandbox=True))
    assert (failure.code, failure.retryable) == (Code.INTERNAL_ERROR, True)
    assert "space" not in failure.message


@pytest.mark.parametrize("missing", ['["landlock"]', '{"made up": "no"}', "[" * 60_000])
def test_nonsense_about_the_sandbox_is_a_failure_of_the_decoder(
    tmp_path: Path, video: Path, missing: str
) -> None:
    program = (
        "import socket; from workers.decode_wire import Kind, send\n"
        f"send(socket.socket(fileno=1), Kind.SANDBOX, {missing.encode()!r})\n"
    )
    with stand_in(tmp_path, program) as server:
        assert _failure(video, server).code is Code.DECODE_CRASHED


@contextmanager
def _paused(seconds: float) -> Iterator[None]:
    """Whatever of this process runs within the block is stopped once for so long."""
    pause = f"import os, signal, time; os.kill({os.getpid()}, signal.SIGSTOP); time.sleep({seconds})"
    again = f"os.kill({os.getpid()}, signal.SIGCONT)"
    with subprocess.Popen([sys.executable, "-c", f"{pause}; {again}"]) as stopper:
        yield
        stopper.wait()


def test_time_in_which_the_process_is_stopped_is_hardly_counted() -> None:
    patience, began = Patience(1.5, look_s=0.1), time.monotonic()
    with _paused(2.0):
        while time.monotonic() - began < 2.0:
            assert not patience.over()
            time.sleep(0.01)
    while not patience.over():
        assert time.monotonic() - began < 10


def test_a_worker_that_was_stopped_past_the_deadline_of_a_video_takes_its_frames(
    tmp_path: Path, video: Path
) -> None:
    with spoiled(tmp_path, "import time; time.sleep(0.5)") as server, _paused(3.5):
        assert len(decode(video, PLAN, DecodeLimits(wall_s=3.0), server=server).frames) == 4


def test_frames_that_were_there_in_time_are_taken_however_late(tmp_path: Path, video: Path) -> None:
    def dawdle(done: int, total: int) -> None:
        time.sleep(0.7)

    limits = DecodeLimits(wall_s=2.0)
    with spoiled(tmp_path, "pass") as server:
        decode(video, PLAN, server=server)  # it is warm from here on
        assert len(decode(video, PLAN, limits, on_frame=dawdle, server=server).frames) == 4
