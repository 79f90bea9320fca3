"""Long videos for measuring how they are decoded, made in the time that a short one takes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

RATE = 25
X264 = {"preset": "veryfast", "crf": "23", "bf": "3", "refs": "3"}
"""Faster to encode than x264's default preset, with its B-frames, references, pyramid and quality."""


@dataclass(frozen=True)
class Film:
    """An H.264 mp4 at 25 frames a second, in whole parts of `part_frames` each, a keyframe every `gop` frames."""

    seconds: int = 600
    width: int = 1920
    height: int = 1080
    gop: int = 250
    part_frames: int = 500

    def write(self, path: Path) -> Path:
        """Encodes one part and repeats its packets, each time later."""
        paint = _scene(self.width, self.height)
        with av.open(str(path), "w") as container:
            stream = container.add_stream("libx264", rate=RATE, options=X264 | {"g": str(self.gop)})
            # PyAV's default makes x264 cut each picture into a slice per thread; x264's own default is one slice.
            stream.codec_context.thread_type = "FRAME"
            stream.width, stream.height, stream.pix_fmt = self.width, self.height, "yuv420p"
            packets = []
            for index in range(self.part_frames):
                frame = av.VideoFrame.from_ndarray(paint(index), format="yuv420p")
                frame.pts, frame.time_base = index, Fraction(1, RATE)
                packets += stream.encode(frame)
            packets += stream.encode()
            part = [(bytes(p), p.pts, p.dts, p.is_keyframe) for p in packets]
            for begin in range(0, self.seconds * RATE, self.part_frames):
                for data, pts, dts, is_keyframe in part:
                    packet = av.Packet(data)
                    packet.stream, packet.time_base = stream, Fraction(1, RATE)
                    packet.pts, packet.dts, packet.duration = begin + pts, begin + dts, 1
                    packet.is_keyframe = is_keyframe
                    container.mux(packet)
        return path


def cut(film: Path, path: Path, seconds: int) -> Path:
    """The first seconds of a film, none of it encoded anew."""
    with av.open(str(film)) as whole, av.open(str(path), "w") as container:
        source = whole.streams.video[0]
        stream = container.add_stream_from_template(source)
        for packet in whole.demux(source):
            if packet.dts is None or packet.dts * packet.time_base >= seconds:
                break
            packet.stream = stream
            container.mux(packet)
    return path


def _scene(width: int, height: int) -> Callable[[int], np.ndarray]:
    """A camera that sways over a textured ground with six things that move, under fresh film grain: yuv420p."""
    rng = np.random.default_rng(0)
    ground = np.kron(rng.integers(30, 220, (height // 8, width // 8)), np.ones((16, 16), int)).astype(
        np.float32
    )
    for axis in (0, 1):
        ground = sum(np.roll(ground, by, axis) for by in range(-8, 9)) / 17
    ground = (ground + rng.normal(0, 3, ground.shape)).astype(np.int16)
    grain = rng.integers(-2, 3, (height + 64, width + 64)).astype(np.int16)
    things = [ground[: height // 5, : width // 6] // 2 + 40 + 12 * k for k in range(6)]

    def paint(index: int) -> np.ndarray:
        top = round(height * (0.45 + 0.4 * np.sin(index / 90)))
        left = round(width * (0.45 + 0.4 * np.sin(index / 140)))
        luma = ground[top : top + height, left : left + width].copy()
        for k, thing in enumerate(things):
            y = round(height * 0.8 * (0.5 + 0.49 * np.sin(index / (25 + 7 * k) + k)))
            x = round(width * 0.8 * (0.5 + 0.49 * np.cos(index / (31 + 5 * k) + 2 * k)))
            luma[y : y + thing.shape[0], x : x + thing.shape[1]] = thing
        y, x = rng.integers(0, 64, 2)
        luma += grain[y : y + height, x : x + width]
        chroma = np.full((height // 2, width), 128) + 40 * np.sin((np.arange(width) + 3 * index) / 200)
        return np.concatenate([luma.clip(16, 235), chroma]).astype(np.uint8)

    return paint
