"""A summary as a plain RQ job makes it: stock video loading, plain peft, `generate`, one video at a time.

The libraries and the model are loaded where they are first needed: once in a worker that stays, in every job in one
that forks.
"""

from __future__ import annotations

import json
import os
from functools import cache
from pathlib import Path
from typing import Any

MODEL = "BENCHMARK_MODEL"
"""Environment: JSON with `backbone`, a folder, and `adapters`, domain → folder."""
SUMMARIZE = "benchmarks.plain_job.summarize"


def summarize(path: str, domain: str) -> str:
    """The summary of one video by its domain's adapter: the same frames, sizes and words as in the service."""
    import torch

    model, processor, builder = loaded()
    prompt = builder.build(_frames(path, builder.frame_plan()), None)
    model.set_adapter(domain)
    with torch.inference_mode():
        out = model.generate(
            input_ids=prompt.input_ids[None],
            attention_mask=torch.ones_like(prompt.input_ids)[None],
            pixel_values_videos=prompt.pixel_values,
            video_grid_thw=prompt.grid_thw,
            video_merge_sizes=prompt.merge_sizes,
            video_compression_mask=prompt.compression_mask,
        )
    return processor.tokenizer.decode(out[0, prompt.tokens :], skip_special_tokens=True).strip()


@cache
def loaded() -> tuple[Any, Any, Any]:
    """(model with every adapter, processor, prompt builder): all that a team would load at start."""
    import logging

    import torch
    from peft import PeftModel
    from transformers import VideoLlama3ForConditionalGeneration, VideoLlama3Processor

    from model_store.backbone import read_backbone_manifest
    from workers.prompt import PromptBuilder

    logging.disable(logging.WARNING)
    told = json.loads(os.environ[MODEL])
    folder, adapters = told["backbone"], dict(told["adapters"])
    model = VideoLlama3ForConditionalGeneration.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="sdpa", use_safetensors=True, local_files_only=True
    )
    first = next(iter(adapters))
    wrapped = PeftModel.from_pretrained(model, adapters.pop(first), adapter_name=first)
    for domain, path in adapters.items():
        wrapped.load_adapter(path, adapter_name=domain)
    processor = VideoLlama3Processor.from_pretrained(folder, local_files_only=True)
    manifest = read_backbone_manifest(Path(folder), "plain")
    wrapped.generation_config.max_new_tokens = manifest.max_new_tokens
    return wrapped.eval(), processor, PromptBuilder(processor, manifest)


def _frames(path: str, plan: Any) -> Any:
    """`load_video` with pyav at the frames that the service looks at, scaled to the same size."""
    import torch
    from torchvision.transforms.v2 import functional as F
    from transformers.video_utils import load_video

    from workers.decode import DecodedVideo

    frames, facts = load_video(
        path,
        backend="pyav",
        sample_indices_fn=lambda metadata, **_: plan.indices(metadata.total_num_frames, metadata.duration),
    )
    height, width = plan.frame_size(frames.shape[1], frames.shape[2], len(frames))
    scaled = F.resize(torch.from_numpy(frames).permute(0, 3, 1, 2), [height, width], antialias=True)
    return DecodedVideo(
        frames=scaled.permute(0, 2, 3, 1).numpy(),
        timestamps_s=[float(index / facts.fps) for index in facts.frames_indices],
        duration_s=facts.duration,
        fps=facts.fps,
        width=facts.width,
        height=facts.height,
        frame_count=facts.total_num_frames,
    )
