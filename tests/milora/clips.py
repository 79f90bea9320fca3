"""Batches of random clips for the tiny model, and adapters with random weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from milora import AdapterState, GroupConfig, LayerState, MiloraConfig, MiloraModel, video_llama_3
from tests.tiny_backbone import MERGE_SIZE, PATCH_SIZE, tiny_config

CONFIG = video_llama_3(experts=3, rank=2, lora_alpha=6.0)
SIDE = 4  # patches a side of every frame


@dataclass(frozen=True)
class Clip:
    """One request: patches (N, 3·p·p) of its frames and its prompt's token ids (P,)."""

    pixels: Tensor
    frames: int
    prompt: Tensor


@dataclass(frozen=True)
class ClipBatch:
    """What the model's forward takes for several clips, left-padded, and what a pass needs to route them."""

    inputs: dict[str, Tensor]
    prompt_mask: Tensor
    patches: list[int]

    @property
    def routing(self) -> dict[str, Tensor | list[int]]:
        return {"prompt_mask": self.prompt_mask, "patches": self.patches}


def clip(frames: int, words: int, seed: int) -> Clip:
    """A random clip with a prompt of ``words`` random tokens after its video tokens."""
    generator = torch.Generator().manual_seed(seed)
    video = torch.full((frames * (SIDE // MERGE_SIZE) ** 2,), tiny_config().video_token_id)
    text = torch.randint(0, 200, (words,), generator=generator)
    pixels = torch.randn(frames * SIDE * SIDE, 3 * PATCH_SIZE**2, generator=generator)
    return Clip(pixels, frames, torch.cat([video, text]))


def batch_of(clips: Sequence[Clip], *, pad_to: int = 0) -> ClipBatch:
    """Clips as one left-padded batch."""
    tokens = max([pad_to, *(len(one.prompt) for one in clips)])
    ids = torch.zeros(len(clips), tokens, dtype=torch.long)
    mask = torch.zeros(len(clips), tokens, dtype=torch.long)
    for row, one in enumerate(clips):
        ids[row, tokens - len(one.prompt) :] = one.prompt
        mask[row, tokens - len(one.prompt) :] = 1
    inputs = {
        "input_ids": ids,
        "attention_mask": mask,
        "position_ids": (mask.cumsum(1) - 1).clamp_min(0),
        "pixel_values_videos": torch.cat([one.pixels for one in clips]),
        "video_grid_thw": torch.tensor([[one.frames, SIDE, SIDE] for one in clips]),
        "video_merge_sizes": torch.tensor([MERGE_SIZE] * len(clips)),
    }
    return ClipBatch(inputs, mask.bool(), [one.frames * SIDE * SIDE for one in clips])


def random_state(
    handle: MiloraModel, seed: int, config: MiloraConfig = CONFIG, a: float = 0.7
) -> AdapterState:
    """An adapter whose experts matter and whose gates are neither uniform nor one-hot."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int, scale: float) -> Tensor:
        return torch.randn(*shape, generator=generator) * scale

    layers: dict[str, LayerState] = {}
    groups: dict[str, GroupConfig] = {}
    for name, group in config.groups.items():
        own = handle.layers_of(name)
        groups[name] = GroupConfig(
            tuple(layer.name for layer in own),
            group.experts,
            group.rank,
            group.lora_alpha,
            temperature=group.temperature,
        )
        for layer in own:
            A = draw(group.rank_total, layer.fan_in, scale=0.3 / layer.fan_in**0.5)
            B = draw(layer.fan_out, group.rank_total, scale=0.3)
            G = draw(group.experts, layer.fan_in, scale=1.0 / layer.fan_in**0.5)
            if layer.conv is not None:
                A, B = layer.conv.kernel_of(A), layer.conv.pointwise(B)
            layers[layer.name] = LayerState(A, B, G, draw(group.experts, scale=0.3))
    return AdapterState(groups, layers, a)


def bytes_of(module: nn.Module) -> dict[str, bytes]:
    """Every tensor of a module, by name, as bytes."""
    return {name: tensor.numpy().tobytes() for name, tensor in module.state_dict().items()}


def capture_input(model: nn.Module, name: str) -> list[Tensor]:
    """A list that fills with the inputs of one module as passes run."""
    seen: list[Tensor] = []
    model.get_submodule(name).register_forward_pre_hook(lambda _, args: seen.append(args[0].detach().clone()))
    return seen
