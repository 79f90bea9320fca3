"""Real video files, written on the spot."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import av
import numpy as np

FPS = 24
WIDTH, HEIGHT = 160, 120

Painter = Callable[[int], np.ndarray]


def sweep(total: int, width: int = WIDTH, height: int = HEIGHT) -> Painter:
    """White grows from the left over black: the share of white tells which frame it is."""

    def paint(index: int) -> np.ndarray:
        frame = np.zeros((height, width, 3), np.uint8)
        frame[:, : round(width * index / total)] = 255
        return frame

    return paint


def blobs(seed: int, width: int = WIDTH, height: int = HEIGHT) -> Painter:
    """Coloured rectangles that drift; another seed is another video."""
    rng = np.random.default_rng(seed)
    colours = rng.integers(0, 255, (6, 3))
    places = rng.integers(0, 80, (6, 2))
    speeds = rng.integers(-2, 3, (6, 2))

    def paint(index: int) -> np.ndarray:
        frame = np.full((height, width, 3), colours[0], np.uint8)
        for colour, place, speed in zip(colours, places, speeds, strict=True):
            x, y = (place + speed * index) % 80
            frame[y : y + 30, x : x + 40] = colour
        return frame

    return paint


def write_video(
    path: Path,
    seconds: float = 2.0,
    *,
    paint: Painter | None = None,
    fps: int = FPS,
    codec: str = "libx264",
    size: tuple[int, int] = (WIDTH, HEIGHT),
    options: dict[str, str] | None = None,
) -> Path:
    """A video of `seconds`, its container by the file's suffix."""
    total = round(seconds * fps)
    paint = paint or sweep(total, *size)
    with av.open(str(path), "w", options=options or {}) as container:
        stream = container.add_stream(codec, rate=fps)
        stream.width, stream.height = size
        stream.pix_fmt = "yuv420p"
        stream.gop_size = 12
        stream.codec_context.thread_count = 1
        if codec == "libx264":
            stream.options = {"preset": "ultrafast"}
        for index in range(total):
            frame = av.VideoFrame.from_ndarray(paint(index), format="rgb24")
            for packet in stream.encode(frame):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    return path


def write_audio(path: Path, seconds: float = 1.0) -> Path:
    """An MP4 that holds sound and no picture."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=16000)
        samples = np.zeros((1, round(16000 * seconds)), np.float32)
        frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout="mono")
        frame.sample_rate = 16000
        for packet in stream.encode(frame):
            container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    return path


def write_without_frames(path: Path) -> Path:
    """A file that announces a video stream and holds no frame of it."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FPS)
        stream.width, stream.height = WIDTH, HEIGHT
        stream.pix_fmt = "yuv420p"
        container.start_encoding()
    return path
