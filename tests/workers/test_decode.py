"""Decoding: what comes back of a good video, and how a bad one is refused."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest

from contract.errors import Code, JobFailure
from tests.workers.decoders import stand_in
from tests.workers.videos import FPS, write_audio, write_video, write_without_frames
from workers.decode import DecodeCanceled, DecodedVideo, DecoderDied, _Cpus, decode
from workers.frame_plan import DecodeLimits, FramePlan

PLAN = FramePlan(max_frames=16, size_multiple=8, frame_pixels=48 * 64)

Replace = Callable[[str], None]


@pytest.fixture
def replace_child(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Replace]:
    """Lets another program stand in for the decoder."""
    with ExitStack() as stack:

        def replace(program: str) -> None:
            server = stack.enter_context(stand_in(tmp_path, program))
            monkeypatch.setattr("workers.decode.SERVER", server)

        yield replace


def _white(video: DecodedVideo) -> np.ndarray:
    """The share of white in each frame: where in the sweep it was taken."""
    return (video.frames[..., 1] > 127).mean((1, 2))


@pytest.mark.parametrize(
    ("name", "codec"),
    [
        ("clip.mp4", "libx264"),
        ("clip.mov", "libx264"),
        ("clip.mkv", "libx264"),
        ("clip.webm", "libvpx-vp9"),
        ("clip.avi", "mpeg4"),
        ("clip.ts", "libx264"),
        ("clip.mpg", "mpeg2video"),
    ],
)
def test_one_frame_a_second_over_the_whole_length(tmp_path: Path, name: str, codec: str) -> None:
    video = decode(write_video(tmp_path / name, 6.0, codec=codec), PLAN)
    assert video.frames.shape == (6, 48, 64, 3)
    assert video.timestamps_s == pytest.approx([0, 1, 2, 3, 4, 5], abs=0.05)
    assert _white(video) == pytest.approx(np.arange(6) / 6, abs=0.03)
    assert video.duration_s == pytest.approx(6, abs=0.05)
    assert video.fps == pytest.approx(FPS, abs=0.1)
    assert (video.width, video.height, video.frame_count) == (160, 120, 6 * FPS)


def test_a_short_video_gives_the_least_number_of_frames(tmp_path: Path) -> None:
    video = decode(write_video(tmp_path / "clip.mp4", 0.5), PLAN)
    assert len(video.frames) == 4
    assert video.timestamps_s == pytest.approx([0, 0.125, 0.25, 0.375])


def test_a_video_of_three_frames_gives_all_of_them(tmp_path: Path) -> None:
    assert len(decode(write_video(tmp_path / "clip.mp4", 3 / FPS), PLAN).frames) == 3


def test_a_long_video_gives_at_most_the_cap_and_reaches_its_end(tmp_path: Path) -> None:
    video = decode(write_video(tmp_path / "clip.mp4", 60, fps=8), FramePlan(max_frames=10, size_multiple=8))
    assert len(video.frames) == 10
    assert video.timestamps_s == pytest.approx([6 * i for i in range(10)])
    assert _white(video) == pytest.approx(np.arange(10) / 10, abs=0.03)


def test_progress_counts_the_frames(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    decode(
        write_video(tmp_path / "clip.mp4", 5), PLAN, on_frame=lambda done, total: seen.append((done, total))
    )
    assert seen == [(i, 5) for i in range(1, 6)]


def test_a_file_that_no_demuxer_is_pinned_for_is_refused(tmp_path: Path) -> None:
    playlist = tmp_path / "clip.mp4"
    playlist.write_text("#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n")
    assert _code(playlist) is Code.VIDEO_UNSUPPORTED_CONTAINER


@pytest.mark.parametrize(
    "head",
    [b"\0\0\0\x18ftypisom", b"\x1a\x45\xdf\xa3\x42\x82\x88matroska", b"RIFF\0\0\0\0AVI LIST"],
    ids=["mp4", "matroska", "avi"],
)
def test_garbage_behind_a_good_head_is_undecodable(tmp_path: Path, head: bytes) -> None:
    path = tmp_path / "clip.mp4"
    path.write_bytes(head + np.random.default_rng(0).bytes(20_000))
    assert _code(path) in (Code.VIDEO_UNDECODABLE, Code.VIDEO_NO_VIDEO_STREAM)


@pytest.mark.parametrize("share", [0.3, 0.6])
@pytest.mark.parametrize("name", ["clip.mp4", "faststart.mp4", "clip.mkv"])
def test_a_video_cut_short_is_undecodable(tmp_path: Path, name: str, share: float) -> None:
    options = {"movflags": "faststart"} if name == "faststart.mp4" else {}
    path = write_video(tmp_path / name, 10, options=options)
    raw = path.read_bytes()
    path.write_bytes(raw[: int(len(raw) * share)])
    assert _code(path) is Code.VIDEO_UNDECODABLE


def test_sound_without_a_picture_has_no_video_stream(tmp_path: Path) -> None:
    assert _code(write_audio(tmp_path / "clip.mp4")) is Code.VIDEO_NO_VIDEO_STREAM


def test_a_stream_without_frames_is_told_apart(tmp_path: Path) -> None:
    assert _code(write_without_frames(tmp_path / "clip.mkv")) is Code.VIDEO_NO_FRAMES


def test_a_video_over_the_longest_duration_is_too_long(tmp_path: Path) -> None:
    path = write_video(tmp_path / "clip.mp4", 4)
    with pytest.raises(JobFailure, match="lasts 4 s; at most 3 s") as failure:
        decode(path, PLAN, DecodeLimits(max_duration_s=3))
    assert failure.value.code is Code.VIDEO_TOO_LONG


def test_a_picture_of_too_many_pixels_is_refused(tmp_path: Path) -> None:
    assert (
        _code(write_video(tmp_path / "clip.mp4"), DecodeLimits(max_picture_pixels=100))
        is Code.VIDEO_TOO_LARGE
    )


def test_a_video_that_takes_more_memory_than_it_may_is_too_large(tmp_path: Path) -> None:
    path = write_video(tmp_path / "clip.mp4", 4)
    large = FramePlan(min_frames=9, max_frames=9, size_multiple=8, frame_pixels=4096 * 4096)
    with pytest.raises(JobFailure, match="too much memory") as failure:
        decode(path, large, DecodeLimits(memory_bytes=512 << 20))
    assert failure.value.code is Code.VIDEO_TOO_LARGE


def test_the_wall_clock_ends_a_decoding_that_hangs(tmp_path: Path, replace_child: Replace) -> None:
    replace_child("import time; time.sleep(60)")
    began = time.monotonic()
    assert _code(write_video(tmp_path / "clip.mp4"), DecodeLimits(wall_s=0.5)) is Code.DECODE_TIMEOUT
    assert time.monotonic() - began < 5


@pytest.mark.parametrize(
    "program",
    [
        "import os; os.kill(os.getpid(), 11)",
        "raise SystemExit(3)",
        "print('not a message')",
        "import sys; sys.stdout.buffer.write(b'F' + bytes([255] * 4) + b'x' * 100)",
    ],
    ids=["segfault", "exit", "noise", "frame out of turn"],
)
def test_a_decoder_that_breaks_is_a_failure_of_its_own(
    tmp_path: Path, replace_child: Replace, program: str
) -> None:
    replace_child(program)
    assert _code(write_video(tmp_path / "clip.mp4")) is Code.DECODE_CRASHED


SAID = {
    "width": 160,
    "height": 120,
    "fps": 1,
    "duration_s": 1,
    "frame_count": 1,
    "rotation": 0,
    "count": 1,
    "frame_height": 48,
    "frame_width": 64,
}


@pytest.mark.parametrize(
    "info",
    [
        SAID | {"count": 17},
        SAID | {"count": 2},
        SAID | {"frame_height": 1 << 20, "frame_width": 1 << 20},
        SAID | {"frame_height": 8000, "frame_width": 8000},
        SAID | {"width": 10_000, "height": 10_000},
        SAID | {"frame_count": 1_000_001},
        SAID | {"duration_s": 14_401},
        SAID | {"frame_height": 0},
        {"count": 1},
        SAID | {"fps": float("nan")},
        SAID | {"duration_s": -1},
        SAID | {"width": "160"},
        SAID | {"width": 10**300},
        SAID | {"rotation": 1e9},
        SAID | {"rotation": 10**400},
        SAID | {"fps": 10**400},
        SAID | {"duration_s": 10**400},
        SAID | {"frame_count": True},
    ],
    ids=[
        "more frames than planned",
        "more frames than there are",
        "frames beyond the memory limit",
        "frames of another size than planned",
        "a picture that is not taken",
        "more frames than are taken",
        "a longer video than is taken",
        "empty frames",
        "half of it",
        "no number",
        "a negative duration",
        "words",
        "a number beyond all",
        "a broken angle",
        "an angle beyond all floats",
        "a rate beyond all floats",
        "a duration beyond all floats",
        "a truth",
    ],
)
def test_what_a_process_says_of_a_video_is_not_believed(
    tmp_path: Path, replace_child: Replace, info: dict[str, object]
) -> None:
    replace_child(
        "import json, socket; from workers.decode_wire import Kind, TIMESTAMP, receive_descriptor, receive_json\n"
        "from workers.decode_wire import send, send_json\n"
        "link = socket.socket(fileno=1); link.settimeout(0.3); receive_json(link, Kind.REQUEST)\n"
        f"send_json(link, Kind.INFO, json.loads({json.dumps(info)!r}))\n"
        # Believed, it would go on as it should and be taken for a video.
        "receive_descriptor(link, Kind.MEMORY); send(link, Kind.FRAME, TIMESTAMP.pack(0.0)); send(link, Kind.DONE)\n"
    )
    assert _code(write_video(tmp_path / "clip.mp4")) is Code.DECODE_CRASHED


def test_what_a_process_says_in_words_can_be_written_down(tmp_path: Path, replace_child: Replace) -> None:
    replace_child(
        "import socket; from workers.decode_wire import Kind, receive_json, send_json\n"
        "link = socket.socket(fileno=1); link.settimeout(0.3); receive_json(link, Kind.REQUEST)\n"
        "send_json(link, Kind.ERROR, {'code': 'video.undecodable', 'message': 'It is ' + chr(0xd800) + 'damaged.'})\n"
    )
    with pytest.raises(JobFailure) as failure:
        decode(write_video(tmp_path / "clip.mp4"), PLAN)
    assert (failure.value.code, failure.value.message) == (Code.VIDEO_UNDECODABLE, "It is damaged.")


@pytest.mark.parametrize("stamp", ["nan", "inf", "-1e300", "-0.1", "1.1"])
def test_a_time_outside_of_the_video_is_not_believed(
    tmp_path: Path, replace_child: Replace, stamp: str
) -> None:
    replace_child(
        "import socket; from workers.decode_wire import Kind, TIMESTAMP, receive_descriptor, send, send_json\n"
        "from workers.decode_wire import receive_json\n"
        "link = socket.socket(fileno=1); receive_json(link, Kind.REQUEST)\n"
        f"send_json(link, Kind.INFO, {SAID!r})\n"
        "receive_descriptor(link, Kind.MEMORY)\n"
        f"send(link, Kind.FRAME, TIMESTAMP.pack(float('{stamp}')))\n"
        "send(link, Kind.DONE)\n"
    )
    assert _code(write_video(tmp_path / "clip.mp4")) is Code.DECODE_CRASHED


def test_a_crash_tells_the_worker_by_which_signal(tmp_path: Path, replace_child: Replace) -> None:
    replace_child("import os; os.kill(os.getpid(), 11)")
    with pytest.raises(JobFailure) as failure:
        decode(write_video(tmp_path / "clip.mp4"), PLAN)
    assert isinstance(failure.value.__cause__, DecoderDied)
    assert failure.value.__cause__.status == -signal.SIGSEGV
    assert not failure.value.retryable


def test_a_used_up_processor_is_a_timeout_and_no_crash(tmp_path: Path, replace_child: Replace) -> None:
    replace_child(
        "import os; from workers.decode_sandbox import confine\n"
        "confine(memory_bytes=1 << 30, cpu_s=1, parent_pid=os.getppid())\n"
        "while True: pass\n"
    )
    # Its own words: the wall clock would end it too, later, and with the same code.
    with pytest.raises(JobFailure, match="too much of the processor") as failure:
        decode(write_video(tmp_path / "clip.mp4"), PLAN, DecodeLimits(wall_s=20.0))
    assert failure.value.code is Code.DECODE_TIMEOUT


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_a_video_whose_server_was_ended_is_tried_again(tmp_path: Path) -> None:
    path = write_video(tmp_path / "clip.mp4")
    with stand_in(tmp_path, "import time; time.sleep(60)") as server, ThreadPoolExecutor(1) as pool:
        running = pool.submit(decode, path, PLAN, server=server)
        while not _children(server.pid):
            assert not running.done()
        server.close()
        with pytest.raises(JobFailure) as failure:
            running.result()
    assert failure.value.code is Code.DECODE_CRASHED
    assert failure.value.retryable


def test_an_unknown_refusal_is_a_failure_of_the_decoder(tmp_path: Path, replace_child: Replace) -> None:
    replace_child(
        "import socket; from workers.decode_wire import Kind, send_json\n"
        "send_json(socket.socket(fileno=1), Kind.ERROR, {'code': 'made.up', 'message': 'no'})\n"
    )
    assert _code(write_video(tmp_path / "clip.mp4")) is Code.DECODE_CRASHED


@pytest.mark.parametrize("kind", ["INFO", "ERROR"])
def test_messages_nested_beyond_measure_are_a_failure_of_the_decoder(
    tmp_path: Path, replace_child: Replace, kind: str
) -> None:
    replace_child(
        "import socket; from workers.decode_wire import Kind, send\n"
        f"send(socket.socket(fileno=1), Kind.{kind}, b'[' * 60_000)\n"
    )
    assert _code(write_video(tmp_path / "clip.mp4")) is Code.DECODE_CRASHED


def test_videos_under_way_share_the_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workers.decode.usable_cpus", lambda: 6)
    cpus = _Cpus()
    with cpus.share() as first, cpus.share() as second, cpus.share() as third:
        assert (first, second, third) == (6, 3, 2)
    with ExitStack() as many:
        assert [many.enter_context(cpus.share()) for _ in range(8)][-2:] == [1, 1]
    with cpus.share() as alone:
        assert alone == 6


def test_a_canceled_decoding_ends_at_once(tmp_path: Path, replace_child: Replace) -> None:
    replace_child("import time; time.sleep(60)")
    path, cancel = write_video(tmp_path / "clip.mp4"), threading.Event()
    threading.Timer(0.2, cancel.set).start()
    with pytest.raises(DecodeCanceled):
        decode(path, PLAN, cancel=cancel)


def test_the_decoding_process_loads_neither_torch_nor_numpy() -> None:
    heavy = "{'torch', 'numpy', 'pydantic', 'redis'}"
    program = f"import sys, workers.decode_server; print(sorted({heavy} & set(sys.modules)))"
    out = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def _children(pid: int | None) -> str:
    tasks = Path(f"/proc/{pid}/task").glob("*/children") if pid else ()
    return "".join(task.read_text() for task in tasks)


def _code(path: Path, limits: DecodeLimits | None = None) -> Code:
    with pytest.raises(JobFailure) as failure:
        decode(path, PLAN, limits)
    assert failure.value.message.endswith(".")
    return failure.value.code
