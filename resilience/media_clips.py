"""Small sound videos in every container and codec that is taken: what the mutations begin with."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from io import BytesIO

import av
import numpy as np

WIDTH, HEIGHT, FRAMES, FPS = 64, 64, 12, 8


@dataclass(frozen=True)
class Clip:
    """A whole file. `container` is what it is by its bytes, `muxer` FFmpeg's name for how it was written."""

    container: str
    codec: str
    muxer: str
    data: bytes

    @property
    def name(self) -> str:
        return f"{self.container}-{self.codec}"


_ENCODERS = {
    "h264": ("libx264", "yuv420p", {"preset": "ultrafast", "bf": "2"}),
    "hevc": ("libx265", "yuv420p", {"preset": "ultrafast", "x265-params": "log-level=none:pools=none"}),
    "av1": ("libsvtav1", "yuv420p", {"preset": "12", "svtav1-params": "lp=1"}),
    "vp8": ("libvpx", "yuv420p", {"deadline": "realtime"}),
    "vp9": ("libvpx-vp9", "yuv420p", {"deadline": "realtime"}),
    "mpeg1video": ("mpeg1video", "yuv420p", {}),
    "mpeg2video": ("mpeg2video", "yuv420p", {}),
    "mpeg4": ("mpeg4", "yuv420p", {}),
    "mjpeg": ("mjpeg", "yuvj420p", {}),
    "prores": ("prores_ks", "yuv422p10le", {}),
}
_MUXED = {
    "mp4": ("mp4", {}, ("h264", "hevc", "av1", "vp9", "mpeg4")),
    "mp4 in fragments": ("mp4", {"movflags": "frag_keyframe+empty_moov"}, ("h264",)),
    "mov": ("mov", {}, ("h264", "prores", "mjpeg")),
    "matroska": ("matroska", {}, ("h264", "hevc", "vp8", "av1", "mpeg2video", "prores")),
    "webm": ("webm", {}, ("vp8", "vp9", "av1")),
    "avi": ("avi", {}, ("mpeg4", "mjpeg", "h264")),
    "mpegts": ("mpegts", {}, ("h264", "hevc", "mpeg2video")),
    "m2ts": ("mpegts", {"mpegts_m2ts_mode": "1"}, ("h264",)),
    "mpeg": ("vob", {}, ("mpeg2video", "mpeg1video")),
}


def clips() -> Iterator[Clip]:
    """Every container with each of its codecs."""
    os.environ.setdefault("SVT_LOG", "-1")  # the AV1 encoder's only switch for its words on standard error
    for container, (muxer, options, codecs) in _MUXED.items():
        for codec in codecs:
            yield Clip(container, codec, muxer, write(muxer, codec, options=options))


def write(
    muxer: str,
    codec: str,
    *,
    frames: int = FRAMES,
    size: tuple[int, int] = (WIDTH, HEIGHT),
    colour: tuple[int, int, int] | None = None,
    options: dict[str, str] | None = None,
    metadata: dict[str, str] | None = None,
) -> bytes:
    """A file of `frames` frames of a mosaic that drifts, or of one colour."""
    file = BytesIO()
    with av.open(file, "w", format=muxer, options=options or {}) as container:
        container.metadata.update(metadata or {})
        add_video(container, codec, frames=frames, size=size, colour=colour)
    return file.getvalue()


def add_video(
    container: av.container.OutputContainer,
    codec: str,
    *,
    frames: int = FRAMES,
    size: tuple[int, int] = (WIDTH, HEIGHT),
    colour: tuple[int, int, int] | None = None,
) -> None:
    """Encode and write a video stream into an open container."""
    encoder, pix_fmt, options = _ENCODERS[codec]
    # MPEG-1 and MPEG-2 know a few frame rates only.
    rate = 25 if codec.startswith("mpeg") and codec != "mpeg4" else FPS
    stream = container.add_stream(encoder, rate=rate, options=dict(options))
    stream.width, stream.height = size
    stream.pix_fmt = pix_fmt
    stream.gop_size = 6
    stream.codec_context.thread_count = 1
    tiles = np.random.default_rng(0).integers(0, 255, (-(-size[1] // 8), -(-size[0] // 8), 3), np.uint8)
    mosaic = tiles.repeat(8, axis=0).repeat(8, axis=1)[: size[1], : size[0]]
    for index in range(frames):
        picture = np.full_like(mosaic, colour) if colour else np.roll(mosaic, 3 * index, axis=1)
        frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
        frame.pts, frame.time_base = index, Fraction(1, rate)
        container.mux(stream.encode(frame))
    container.mux(stream.encode())
