"""Clips as files: H.264 in mp4 with a JSON of what is true in them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import av

from training.world.clip import FPS, Clip
from training.world.scenery import HEIGHT, WIDTH
from training.world.splits import clip_from_seed

_CRF = "25"  # visible but mild compression, as a phone's or a messenger's


def write_mp4(clip: Clip, path: Path) -> None:
    """Encodes a clip as 320 x 240, 24 frames a second, H.264 in mp4."""
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=FPS)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.options = {"crf": _CRF, "preset": "veryfast", "threads": "1"}
        for index in range(clip.frame_count):
            pixels = clip.render([index / FPS])[0]
            for packet in stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)


def describe(clip: Clip) -> dict:
    """What a clip's JSON file holds: domain, seed, reference summary, facts."""
    return {
        "domain": clip.domain,
        "seed": clip.seed,
        "duration_s": round(clip.duration_s, 3),
        "summary": clip.summary,
        "facts": [asdict(fact) for fact in clip.facts],
    }


def render_folder(domain: str, count: int, seed: int, out: Path) -> Iterator[Path]:
    """Writes ``clip-0000.mp4`` and ``clip-0000.json``, ... for ``count`` seeds from ``seed`` on; yields each mp4.

    Raises:
        ValueError: an unknown domain.
    """
    out.mkdir(parents=True, exist_ok=True)
    for index in range(count):
        clip = clip_from_seed(domain, seed + index)
        path = out / f"clip-{index:04d}.mp4"
        write_mp4(clip, path)
        path.with_suffix(".json").write_text(json.dumps(describe(clip), indent=2) + "\n")
        yield path
