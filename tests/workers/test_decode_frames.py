"""Sparse decoding: bit for bit what a decoder gives that reads the whole file."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from tests.workers.videos import HEIGHT, WIDTH, blobs, write_video
from workers import decode_frames
from workers.decode import decode
from workers.decode_frames import FrameReader, is_disposable, usable_threads
from workers.decode_timeline import Timeline, read_timeline
from workers.frame_plan import DecodeLimits, FramePlan

RATE = 24
X264 = {"preset": "veryfast", "bf": "3"}


@dataclass(frozen=True)
class Film:
    """A way to write a video: its name's suffix is the container."""

    name: str
    codec: str = "libx264"
    gop: int = 48
    frames: int = 144
    options: dict[str, str] = field(default_factory=lambda: dict(X264))
    uneven: bool = False
    pix_fmt: str = "yuv420p"
    seed: int = 0

    def write(self, folder: Path) -> Path:
        path, rng, paint = folder / self.name, np.random.default_rng(self.seed), blobs(self.seed)
        grain = rng.integers(0, 24, (self.frames, HEIGHT, WIDTH, 1), np.uint8)
        with av.open(str(path), "w") as container:
            stream = container.add_stream(self.codec, rate=RATE, options=dict(self.options))
            stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, self.pix_fmt
            stream.gop_size = self.gop
            ticks = 4 if self.uneven else 1
            stream.codec_context.time_base = Fraction(1, RATE * ticks)
            if "bf" in self.options:
                stream.codec_context.max_b_frames = int(self.options["bf"])
            at = 0
            for index in range(self.frames):
                frame = av.VideoFrame.from_ndarray(paint(index) // 2 + grain[index], format="rgb24")
                frame.pts, frame.time_base = at, Fraction(1, RATE * ticks)
                at += int(rng.integers(1, 9)) if self.uneven else 1
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
        return path


FILMS = [
    Film("b-frames.mp4"),
    Film("b-frames.mkv", seed=1),
    Film("b-frames.ts", seed=2),
    Film("open-gop.mp4", gop=24, options=X264 | {"x264-params": "open-gop=1"}),
    Film("open-gop.mkv", gop=24, options=X264 | {"x264-params": "open-gop=1"}),
    Film("short-open-gop.mp4", gop=4, options=X264 | {"x264-params": "open-gop=1"}),
    Film("long-gop.mp4", gop=600),
    Film("no-reorder-depth-known.mp4", options=X264 | {"bsf:v": "", "x264-params": "b-pyramid=strict:ref=4"}),
    Film("all-references.mp4", options={"preset": "ultrafast", "tune": "zerolatency"}),
    Film("gradual-refresh.mp4", gop=24, options={"preset": "veryfast", "intra-refresh": "1"}),
    Film("interlaced.mp4", options=X264 | {"flags": "+ildct+ilme"}),
    Film("uneven.mp4", uneven=True),
    Film("uneven.mkv", uneven=True, seed=3),
    Film("hevc.mp4", codec="libx265", options={"preset": "ultrafast", "x265-params": "bframes=4:log-level=none"}),
    Film("vp9.webm", codec="libvpx-vp9", gop=30, frames=96, options={"deadline": "realtime", "cpu-used": "8"}),
    Film("b-frames.avi", codec="mpeg4", options={"bf": "2"}),
    Film("h264.avi", options=X264),
    Film("b-frames.mpg", codec="mpeg2video", gop=12, options={"bf": "2"}),
    Film("mpeg2.ts", codec="mpeg2video", gop=12, options={"bf": "2"}),
    Film("motion-jpeg.avi", codec="mjpeg", frames=60, options={}, pix_fmt="yuvj420p"),
]  # fmt: skip


@pytest.fixture(scope="module", params=FILMS, ids=lambda film: film.name)
def film(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return request.param.write(tmp_path_factory.mktemp("film"))


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("count", [5, 23, 1000], ids=["few", "some", "all"])
def test_frames_are_those_of_a_decoding_from_end_to_end(film: Path, count: int, threads: int) -> None:
    plan = FramePlan(fps=1000, max_frames=count, size_multiple=8, frame_pixels=HEIGHT * WIDTH)
    video = decode(film, plan, DecodeLimits(threads=threads))
    stamps, frames = _from_end_to_end(film, plan)
    assert video.timestamps_s == pytest.approx(stamps, abs=1e-6)
    assert [bool((a == b).all()) for a, b in zip(video.frames, frames, strict=True)] == [True] * len(frames)


def test_nothing_is_decoded_between_two_frames_that_are_far_apart(tmp_path: Path) -> None:
    with _opened(Film("clip.mp4", gop=24).write(tmp_path)) as (reader, timeline, fed):
        wanted = [timeline.pts[0], timeline.pts[70], timeline.pts[130]]
        assert [pts for pts, _ in reader.frames_at(wanted)] == wanted
    assert len(fed) < 60


def test_what_no_frame_refers_to_is_passed_over(tmp_path: Path) -> None:
    film = Film("clip.mp4", gop=600, options=X264 | {"sc_threshold": "0"})
    with _opened(film.write(tmp_path), threads=4) as (reader, timeline, fed):
        assert [pts for pts, _ in reader.frames_at([timeline.pts[130]])] == [timeline.pts[130]]
    assert 40 < len(fed) < 90


def test_a_keyframe_that_is_nearer_than_a_jump_is_worth_is_walked_to(tmp_path: Path) -> None:
    film = Film("clip.mp4", gop=2, options={"bf": "0"})
    with _opened(film.write(tmp_path), threads=8) as (reader, timeline, fed):
        assert len(list(reader.frames_at(timeline.pts[::3]))) == 48
    assert len(fed) >= len(timeline.pts)


def test_a_broken_packet_costs_its_own_frames_only(tmp_path: Path) -> None:
    path = Film("clip.mkv", gop=12, options={"bf": "0"}).write(tmp_path)
    raw = bytearray(path.read_bytes())
    with av.open(str(path)) as container:
        hit = [packet.pos for packet in container.demux(video=0) if packet.size][30]
    raw[hit + 60 : hit + 400] = bytes(340)
    path.write_bytes(raw)
    video = decode(path, FramePlan(fps=2, max_frames=10, size_multiple=8, frame_pixels=HEIGHT * WIDTH))
    assert len(video.frames) == 10


def test_threads_are_as_many_as_the_memory_has_room_for(tmp_path: Path) -> None:
    with av.open(str(write_video(tmp_path / "clip.mp4"))) as container:
        stream = container.streams.video[0]
        assert [usable_threads(stream, 8, room) for room in (2 << 30, 1 << 30, 512 << 20, 1)] == [8, 7, 3, 1]
    with av.open(str(write_video(tmp_path / "large.mp4", 0.1, size=(3840, 2160)))) as container:
        assert usable_threads(container.streams.video[0], 16, 2 << 30) == 9


def test_the_frames_of_many_threads_fit_into_a_small_memory(tmp_path: Path) -> None:
    path = write_video(tmp_path / "clip.mp4", 1, size=(1920, 1080))
    plan = FramePlan(max_frames=2, size_multiple=8, frame_pixels=HEIGHT * WIDTH)
    assert len(decode(path, plan, DecodeLimits(threads=16, memory_bytes=512 << 20)).frames) == 2


@pytest.mark.parametrize(
    ("headers", "disposable"),
    [
        ([1], True),
        ([9, 6, 1, 1, 12], True),
        ([1, 0x21], False),
        ([8, 1], False),
        ([5], False),
        ([20], False),
        ([6], False),
        ([], False),
    ],
    ids=[
        "slice",
        "slices among filler",
        "reference",
        "with parameters",
        "IDR",
        "scalable",
        "no slice",
        "empty",
    ],
)
def test_a_packet_is_passed_over_only_if_all_of_it_is_known_to_be_needless(
    headers: list[int], disposable: bool
) -> None:
    data = b"".join(bytes([0, 0, 0, 3, header, 7, 7]) for header in headers)
    assert is_disposable(av.Packet(data), 4) is disposable


class _opened:
    """A reader over a file, its timeline, and the pts of the packets that the decoder got until now."""

    def __init__(self, path: Path, threads: int = 1) -> None:
        self._path = path
        self._threads = threads
        self._patch = pytest.MonkeyPatch()

    def __enter__(self) -> tuple[FrameReader, Timeline, list[int | None]]:
        with av.open(str(self._path)) as container:
            timeline = read_timeline(container, container.streams.video[0], DecodeLimits(), indexed=True)
        self._container = av.open(str(self._path))
        stream, fed = self._container.streams.video[0], []
        packets = decode_frames.packets

        def counted(*arguments: object) -> Iterator[av.Packet]:
            for packet in packets(*arguments):
                fed.append(packet.pts)
                yield packet

        def passed_over(*arguments: object) -> bool:
            return is_disposable(*arguments) and fed.pop() is not None

        self._patch.setattr(decode_frames, "packets", counted)
        self._patch.setattr(decode_frames, "is_disposable", passed_over)
        return FrameReader(self._container, stream, timeline, self._threads), timeline, fed

    def __exit__(self, *_: object) -> None:
        self._container.close()
        self._patch.undo()


def _from_end_to_end(path: Path, plan: FramePlan) -> tuple[list[float], list[np.ndarray]]:
    """(seconds, pixels) of each frame that the plan wants, by a decoder that jumps and passes over nothing."""
    with av.open(str(path)) as container:
        timeline = read_timeline(container, container.streams.video[0], DecodeLimits(), indexed=False)
    wanted = [timeline.pts[i] for i in plan.indices(len(timeline.pts), timeline.duration_s)]
    stamps, frames = [], []
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        shown = (frame for packet in container.demux(stream) for frame in packet.decode())
        for target in wanted:
            for frame in shown:
                stamp = frame.pts if frame.pts is not None else frame.dts
                if stamp >= target:
                    stamps.append(float((stamp - timeline.pts[0]) * timeline.time_base))
                    frames.append(frame.to_ndarray(format="rgb24", interpolation="AREA"))
                    break
    return stamps, frames
