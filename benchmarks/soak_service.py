"""The service that a soak is about, with every folder of its own, and the files that are sent to it."""

from __future__ import annotations

import random
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.processes import answers, free_port, part, wait_until
from benchmarks.soak_load import Video
from training.world import DOMAINS, make_clip
from training.world.video import write_mp4

FIRST_CLIP = 6_000  # of the test split
MP4_HEAD = b"\0\0\0\x20ftypisom\0\0\2\0isomiso2avc1mp41"
STOP_S = 60.0
SMALL_CACHES = {
    "VISUM_ADAPTER_HOST_BYTES": str(8 * 2**20),
    "VISUM_VISION_CACHE_BYTES": str(8 * 2**20),
    "VISUM_ADAPTER_SLOTS": "3",
}
"""Full before the warm-up is over: what grows after that is a leak and not a cache that fills. There are fewer slots
than domains, so that adapters are exchanged all the time and requests stand in line for a slot."""


@dataclass(frozen=True)
class Running:
    """One `visum serve` with its data folder and its TMPDIR."""

    process: subprocess.Popen[bytes]
    url: str
    data: Path
    temporary: Path
    log: Path

    def stop(self) -> int | None:
        """SIGTERM; the exit code, None if it did not end in time."""
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            return None

    def errors(self) -> list[str]:
        """The lines of its log that it calls errors itself, or that nothing caught."""
        lines = self.log.read_text(errors="replace").splitlines()
        return [line for line in lines if " ERROR " in line or line.startswith("Traceback")]


@contextmanager
def serving(scratch: Path) -> Iterator[Running]:
    """`visum serve` on a free port, ready to summarize; as shipped, but for the size of its caches."""
    data, temporary, log = scratch / "data", scratch / "tmp", scratch / "serve.log"
    temporary.mkdir()
    port = free_port()
    arguments = ("--port", str(port), "--data-dir", str(data))
    settings = {"VISUM_DEVICE": "cpu", "TMPDIR": str(temporary), **SMALL_CACHES}
    with part("serve", scratch, *arguments, **settings) as process:
        url = f"http://127.0.0.1:{port}"
        wait_until(lambda: answers(f"{url}/readyz"), process, log)
        yield Running(process, url, data, temporary, log)


def render(folder: Path, per_domain: int) -> list[Video]:
    """Clips of the demo world, and three files that are no video."""
    folder.mkdir()
    videos = []
    for index in range(FIRST_CLIP, FIRST_CLIP + per_domain):
        for domain in DOMAINS:
            videos.append(Video(folder / f"{domain}-{index}.mp4"))
            write_mp4(make_clip(domain, index, "test"), videos[-1].path)
    good = videos[0].path.read_bytes()
    bad = {
        "half.mp4": (good[: len(good) // 2], "video.undecodable", False),
        "noise.mp4": (MP4_HEAD + random.Random(1).randbytes(50_000), "video.undecodable", False),
        "notes.mp4": (b"Monday: buy milk\n" * 500, "video.unsupported_container", True),
    }
    for name, (raw, code, refused) in bad.items():
        (folder / name).write_bytes(raw)
        videos.append(Video(folder / name, code, refused))
    return videos
