"""The same model and adapters in plain peft and transformers: what the engine is measured against."""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from safetensors.torch import save_file
from torch.nn import functional as F
from transformers import StoppingCriteria

from benchmarks.case import Case
from benchmarks.engine_arm import DECODE, PREFILL, WHOLE
from benchmarks.side_by_side import Figures
from milora import AdapterState, to_peft
from model_store.manifest import CONFIG_FILE, WEIGHTS_FILE
from workers.prompt import Prompt

LANGUAGE_MODEL = "language_model"
CACHES = ("dynamic", "static")
TRIAL_TOKENS = 8

Tokens = list[list[int]]


def write_lora(state: AdapterState, folder: Path, *, only: str = "") -> str:
    """An adapter as the PEFT LoRA of rank K·r that it is, of the layers with `only` in their names; the folder."""
    config, tensors, _ = to_peft(state, "visum")
    names = [name for name in config["target_modules"] if only in name]
    folder.mkdir(parents=True)
    patterns = {key: {name: config[key][name] for name in names} for key in ("rank_pattern", "alpha_pattern")}
    (folder / CONFIG_FILE).write_text(json.dumps({**config, "target_modules": names, **patterns}))
    kept = {name: tensor.contiguous() for name, tensor in tensors.items() if only in name}
    save_file(kept, folder / WEIGHTS_FILE, metadata={"format": "pt"})
    return str(folder)


class MixedBatch:
    """`generate` with `adapter_names`: every row of a batch names its LoRA.

    The LoRAs sit on the language model alone. On the vision tower, whose rows are patches and not videos,
    `adapter_names` would adapt the first patches and no others; peft is spared that part of a prefill. They stay
    in the backbone's precision (peft would make them fp32), and of the two caches the faster one is taken.
    """

    def __init__(self, case: Case, folder: Path) -> None:
        folders = {
            domain: write_lora(state, folder / str(number), only=LANGUAGE_MODEL)
            for number, (domain, state) in enumerate(case.adapters.items())
        }
        first, *others = folders
        model = case.twin().model
        with warnings.catch_warnings():
            # peft asks transformers by a name that transformers is about to drop.
            warnings.simplefilter("ignore", FutureWarning)
            self._model = PeftModel.from_pretrained(
                model, folders[first], adapter_name=first, autocast_adapter_dtype=False
            )
            for domain in others:
                self._model.load_adapter(folders[domain], adapter_name=domain, autocast_adapter_dtype=False)
        self._model.eval()
        self._domains = [clip.domain for clip in case.clips]
        self._inputs = batch_inputs([clip.prompt for clip in case.clips], model.device)
        self.cache = CACHES[0]

    def choose_cache(self) -> None:
        """Take whichever cache decodes faster here, after a pass with each to warm up."""
        speeds: dict[str, float] = {}
        for cache in (*CACHES, *CACHES):
            self.cache = cache
            try:
                speeds[cache] = self.generate(TRIAL_TOKENS)[1][DECODE]
            except Exception:  # a static cache is compiled on a GPU, which peft's hooks may not stand
                if cache == CACHES[0]:
                    raise
        self.cache = max(speeds, key=speeds.__getitem__)

    def generate(self, tokens: int) -> tuple[Tokens, Figures]:
        """The new tokens of every row, all `tokens` long, and what they took."""
        names, inputs = self._domains, self._inputs
        implementation = {"cache_implementation": "static"} if self.cache == "static" else {}
        return timed(
            lambda **more: self._model.generate(**inputs, adapter_names=names, **implementation, **more),
            inputs["input_ids"],
            tokens,
        )


class _Clock(StoppingCriteria):
    """Stops nothing; notes when each token was there."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        if input_ids.device.type == "cuda":
            torch.cuda.synchronize()
        self.times.append(time.perf_counter())
        return torch.zeros(input_ids.shape[0], dtype=torch.bool, device=input_ids.device)


@torch.inference_mode()
def timed(generate: Callable[..., torch.Tensor], prompt: torch.Tensor, tokens: int) -> tuple[Tokens, Figures]:
    """Greedy tokens after a prompt (B, T) by some `generate`, and the figures that the engine gives too."""
    clock = _Clock()
    began = time.perf_counter()
    out = generate(max_new_tokens=tokens, do_sample=False, stopping_criteria=[clock])
    seconds = time.perf_counter() - began
    new = out[:, prompt.shape[1] :]
    if new.shape[1] != tokens:
        raise RuntimeError(f"an answer ended after {new.shape[1]} of {tokens} tokens")
    rows, steps = new.shape[0], clock.times[-1] - clock.times[0]
    figures = {
        WHOLE: rows * tokens / seconds,
        DECODE: rows * (tokens - 1) / steps,
        PREFILL: 1000 * (clock.times[0] - began),
    }
    return new.tolist(), figures


def batch_inputs(prompts: Sequence[Prompt], device: torch.device) -> dict[str, torch.Tensor]:
    """What the stock model takes: ids and mask (B, T) padded on the left, the patches of all videos in one piece."""
    longest = max(prompt.tokens for prompt in prompts)

    def padded(rows: Sequence[torch.Tensor]) -> torch.Tensor:
        return torch.stack([F.pad(row, (longest - row.shape[0], 0)) for row in rows])

    inputs = {
        "input_ids": padded([prompt.input_ids for prompt in prompts]),
        "attention_mask": padded([torch.ones_like(prompt.input_ids) for prompt in prompts]),
        "pixel_values_videos": torch.cat([prompt.pixel_values for prompt in prompts]),
        "video_grid_thw": torch.cat([prompt.grid_thw for prompt in prompts]),
        "video_merge_sizes": torch.cat([prompt.merge_sizes for prompt in prompts]),
        "video_compression_mask": torch.cat([prompt.compression_mask for prompt in prompts]),
    }
    return {name: tensor.to(device) for name, tensor in inputs.items()}
