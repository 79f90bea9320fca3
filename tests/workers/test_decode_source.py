"""What of a stranger's file FFmpeg gets to see, without any sandbox around it."""

from __future__ import annotations

from fractions import Fraction
from io import BytesIO
from pathlib import Path

import av
import numpy as np
import pytest

from contract.errors import Code, JobFailure
from resilience.media_attacks import references
from resilience.media_clips import add_video, write
from resilience.media_traps import Traps, set_traps
from workers.decode import decode
from workers.decode_source import CODECS, open_video
from workers.decode_timeline import Undecodable, packets, read_timeline
from workers.frame_plan import DecodeLimits, FramePlan

PLAN = FramePlan(max_frames=8, size_multiple=8, frame_pixels=48 * 64)
LIMITS = DecodeLimits()


def _with_sound(seconds: int = 2) -> bytes:
    file = BytesIO()
    with av.open(file, "w", format="matroska") as container:
        sound = container.add_stream("pcm_s16le", rate=48_000, layout="mono")
        add_video(container, "h264", frames=8 * seconds)
        noise = np.random.default_rng(0).integers(-9000, 9000, (1, 48_000 * seconds), np.int16)
        frame = av.AudioFrame.from_ndarray(noise, format="s16", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = 48_000, 0, Fraction(1, 48_000)
        container.mux(sound.encode(frame))
        container.mux(sound.encode())
    return file.getvalue()


def _code(path: Path, limits: DecodeLimits = LIMITS) -> Code:
    with pytest.raises(JobFailure) as failure:
        decode(path, PLAN, limits)
    return failure.value.code


def test_the_sound_of_a_video_is_not_even_read() -> None:
    with open_video(BytesIO(_with_sound(60)), "matroska", LIMITS) as (container, stream):
        sizes = [packet.size for packet in container.demux() if packet.stream_index != stream.index]
    with av.open(BytesIO(_with_sound(60))) as container:
        assert sum(packet.size for packet in container.demux(audio=0)) > 100 * sum(sizes)


def test_a_video_with_sound_gives_its_frames(tmp_path: Path) -> None:
    path = tmp_path / "clip.mkv"
    path.write_bytes(_with_sound())
    assert len(decode(path, PLAN).frames) == 4


@pytest.mark.parametrize("encoder", ["ffv1", "huffyuv", "wmv2", "png"])
def test_a_codec_that_is_not_on_the_list_is_refused_by_name(tmp_path: Path, encoder: str) -> None:
    path = tmp_path / "clip.avi"
    frame = av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), format="rgb24")
    with av.open(str(path), "w") as container:
        stream = container.add_stream(encoder, rate=8)
        stream.width, stream.height = 64, 64
        stream.pix_fmt = {"png": "rgb24", "huffyuv": "yuv422p"}.get(encoder, "yuv420p")
        for _ in range(8):
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    with pytest.raises(JobFailure, match=f"Videos coded as {encoder} are not taken") as failure:
        decode(path, PLAN)
    assert failure.value.code is Code.VIDEO_UNDECODABLE


@pytest.mark.parametrize("codec", sorted(CODECS))
def test_a_codec_that_is_on_the_list_is_decoded_in_the_sandbox(tmp_path: Path, codec: str) -> None:
    path = tmp_path / "clip.mkv"
    path.write_bytes(write("matroska", codec))
    assert len(decode(path, PLAN).frames) == 4


def test_a_picture_larger_than_the_limit_is_not_decoded_whatever_the_container_says() -> None:
    video = write("matroska", "mjpeg", size=(256, 256))
    limits = DecodeLimits(max_picture_pixels=256 * 256 - 1)
    with open_video(BytesIO(video), "matroska", limits) as (container, stream):
        first = next(packets(container, stream))
        with pytest.raises(av.error.FFmpegError):
            first.decode()


def test_a_video_of_too_many_frames_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "clip.mkv"
    path.write_bytes(write("matroska", "vp8", frames=12))
    assert _code(path, DecodeLimits(max_frames=11)) is Code.VIDEO_TOO_LONG
    assert len(decode(path, PLAN, DecodeLimits(max_frames=12)).frames) == 4


def test_few_bytes_that_become_much_picture_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.decode_timeline._ALWAYS_DECODED_BYTES", 0)
    still = write("matroska", "h264", frames=48, size=(640, 480), colour=(0, 0, 0))
    with open_video(BytesIO(still), "matroska", LIMITS) as (container, stream):
        compressed = sum(packet.size for packet in container.demux(stream))
    times = 48 * 640 * 480 * 3 // 2 // compressed
    for most, refused in ((times - 1, True), (times + 1, False)):
        limits = DecodeLimits(max_expansion=most)
        with open_video(BytesIO(still), "matroska", limits) as (container, stream):
            if refused:
                with pytest.raises(
                    Undecodable, match=f"{times} times its size, at most {most} are accepted"
                ) as told:
                    read_timeline(container, stream, limits, indexed=True)
                assert told.value.code == Code.VIDEO_TOO_LARGE
            else:
                assert len(read_timeline(container, stream, limits, indexed=True).pts) == 48


@pytest.fixture
def traps(tmp_path: Path) -> Traps:
    with set_traps(tmp_path) as traps:
        yield traps


def test_ffmpeg_itself_opens_nothing_that_a_video_refers_to(traps: Traps) -> None:
    for attack in references(traps.bait):
        demuxer = {"mov": "mov", "avi": "avi", "matroska": "matroska", "mp4": "mov"}[attack.name.split()[0]]
        try:
            with open_video(BytesIO(attack.data), demuxer, LIMITS) as (container, stream):
                for packet in packets(container, stream):
                    packet.decode()
        except av.error.FFmpegError:
            pass
    assert (traps.reads, traps.connections) == (0, 0)


def test_a_video_is_read_as_what_its_first_bytes_said_and_as_nothing_else() -> None:
    """FFmpeg guesses nothing: what is Matroska from its first byte on is not, where it was said to be MP4."""
    with pytest.raises(av.error.FFmpegError), open_video(BytesIO(_with_sound()), "mov", LIMITS):
        pass
