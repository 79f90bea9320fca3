"""Imports what a worker imports, answers a clip, and prints the seconds of every step; `benchmarks.start` runs it.

    python -m benchmarks.start_probe STARTED_AT CLIP

STARTED_AT is the time of day at which the caller started us: the interpreter's own start is a step too. Nothing
heavy may be imported at the head of this file.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

INTERPRETER = "interpreter"
TORCH = "import torch"
TRANSFORMERS = "import transformers' Video-LLaMA"
WORKER = "import the worker: PyAV, RQ, ourselves"
IMPORTS = (INTERPRETER, TORCH, TRANSFORMERS, WORKER)
FIRST, LATER = "first answer", "third answer to the same clip"
NEW_TOKENS = 32


def main(started_at: float, clip: Path) -> dict[str, float]:
    """Seconds by step."""
    seconds = {INTERPRETER: time.time() - started_at}

    @contextmanager
    def step(name: str) -> Iterator[None]:
        began = time.perf_counter()
        yield
        seconds[name] = time.perf_counter() - began

    with step(TORCH):
        import torch  # noqa: F401
    with step(TRANSFORMERS):
        from transformers import VideoLlama3ForConditionalGeneration, VideoLlama3Processor  # noqa: F401
        from transformers.utils import logging as transformers_logging
    with step(WORKER):
        from workers.connection import connect
        from workers.main import build_worker, load_backbone
        from workers.settings import WorkerSettings
    transformers_logging.disable_progress_bar()  # as the worker does
    settings = WorkerSettings()
    backbone = load_backbone(settings.backbone, store=settings.store, device=settings.device)
    engine = build_worker(settings, backbone, connect(settings.redis_url)).engine

    from workers.decode import decode
    from workers.prompt import PromptBuilder
    from workers.request import EngineRequest

    builder = PromptBuilder(backbone.processor, backbone.manifest)
    video = decode(clip, builder.frame_plan())
    engine.start()
    for name in (FIRST, "second answer", LATER):
        with step(name):
            engine.submit(EngineRequest(builder.build(video, None), NEW_TOKENS)).result()
    engine.close()
    return {name: seconds[name] for name in (*IMPORTS, FIRST, LATER)}


if __name__ == "__main__":
    print(json.dumps(main(float(sys.argv[1]), Path(sys.argv[2]))))
