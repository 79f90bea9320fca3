"""How many requests may be in flight, and how long each may get, in the memory that is free at start."""

import logging
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import PreTrainedConfig

log = logging.getLogger("visum.engine")

CPU_SHARE, GPU_SHARE = 0.4, 0.7
"""Of the memory that is free and not spoken for, for the cache. The rest is for what is not reckoned: pieces between
tensors, frames, and on the CPU for everybody else."""
PATCHES_PER_TOKEN = 4
"""What the tower reads for every token of a prefill: as many patches are merged into one."""


@dataclass(frozen=True)
class CachePlan:
    """`rows` requests of at most `length` tokens each, prompt and answer together."""

    rows: int
    length: int


def plan_cache(
    config: PreTrainedConfig, dtype: torch.dtype, *, rows: int, length: int, budget: int
) -> CachePlan:
    """As many of the wanted rows as fit into `budget` bytes at the wanted length.

    A request that does not fit is lost, one that waits is only late: rows are given up before length is.
    """
    length = min(length, config.max_position_embeddings)
    per_token = cache_bytes_per_token(config, dtype)
    fitting = budget // (per_token * length)
    plan = CachePlan(min(rows, fitting), length) if fitting else CachePlan(1, max(1, budget // per_token))
    if plan != CachePlan(rows, length):
        log.warning(
            "%d MiB are free for keys and values: %d requests of %d tokens at once, not %d of %d",
            budget >> 20, plan.rows, plan.length, rows, length,
        )  # fmt: skip
    return plan


def cache_bytes_per_token(config: PreTrainedConfig, dtype: torch.dtype) -> int:
    """Keys and values of one position in all layers of a language model, in bytes."""
    width = head_width(config) * config.num_key_value_heads
    return 2 * config.num_hidden_layers * width * torch.empty(0, dtype=dtype).element_size()


def prefill_bytes(config: PreTrainedConfig, dtype: torch.dtype, tokens: int) -> int:
    """What a prefill takes beside the weights: its keys and values until they have rows, and the largest tensors that
    one layer holds at once. Tower and language model run one after the other: the larger of them counts."""
    text, vision = config.text_config, config.vision_config
    reading = tokens * (4 * text.hidden_size + 3 * text.intermediate_size)
    looking = tokens * PATCHES_PER_TOKEN * (8 * vision.hidden_size + 2 * vision.intermediate_size)
    element = torch.empty(0, dtype=dtype).element_size()
    return tokens * cache_bytes_per_token(text, dtype) + element * max(reading, looking)


def head_width(config: PreTrainedConfig) -> int:
    """D, the numbers in one attention head."""
    return getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads


def cache_budget(device: torch.device, later: int) -> int:
    """Bytes that the cache may take on this device, as of now; `later` ones are spoken for by others."""
    if device.type == "cuda":
        free, share = torch.cuda.mem_get_info(device)[0], GPU_SHARE
    else:
        free, share = available_bytes(), CPU_SHARE
    return int(max(0, free - later) * share)


def available_bytes(meminfo: Path = Path("/proc/meminfo"), cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """Memory that this process could still take: the system's, or what its container leaves it if that is less."""
    try:
        lines = dict(line.split(":", 1) for line in meminfo.read_text().splitlines())
        free = int(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return 4 << 30  # no Linux: assume a small machine
    try:
        limit = int((cgroup / "memory.max").read_text())
        taken = int((cgroup / "memory.current").read_text())
        # Files that were read, such as the checkpoint, count as taken and are given up when memory is asked for.
        stat = dict(line.split() for line in (cgroup / "memory.stat").read_text().splitlines())
        return max(0, min(free, limit - taken + int(stat["inactive_file"])))
    except (OSError, ValueError, KeyError):  # no container, or one without a limit ("max")
        return free
