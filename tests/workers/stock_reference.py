"""What `generate` of transformers answers to one request alone, on a copy of the backbone merged for that request.

Nothing here runs our layers, our routing or our decoding: the gates, the fusion and the experts' product are
written out a second time, straight from the formula (docs/architecture.md, "The method as built").
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import VideoLlama3ForConditionalGeneration

from milora import AdapterState, GroupConfig, LayerState
from workers.prompt import Prompt

Gates = dict[str, Tensor]


@dataclass(frozen=True)
class Tokens:
    """The longest answer to a request: its token ids without the stop token, and whether there was one."""

    ids: tuple[int, ...]
    stopped: bool

    def cut(self, max_new_tokens: int) -> tuple[tuple[int, ...], str]:
        """Token ids and finish reason, had it been asked for fewer tokens."""
        reason = "stop" if self.stopped and len(self.ids) < max_new_tokens else "length"
        return self.ids[:max_new_tokens], reason


@dataclass(frozen=True)
class StockAnswer:
    """The answer to one request, and every layer's gate (K,).

    `gap` is the smallest distance, over all positions, between the two largest logits: an answer with a tiny
    one may turn with the order of a sum.
    """

    tokens: Tokens
    gates: Gates
    gap: float


class StockReference:
    """The stock model of a checkpoint folder, merged anew for every request. `states` are the slots' adapters."""

    def __init__(self, folder: Path, states: Mapping[int, AdapterState], stop_ids: list[int], longest: int):
        self._model = VideoLlama3ForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
        self._model.requires_grad_(False)
        self._model.generation_config.eos_token_id = stop_ids
        self._states = states
        self._longest = longest

    @torch.no_grad()
    def answer(self, prompt: Prompt, slot: int) -> StockAnswer:
        """The greedy answer to a prompt with the adapter of a slot, 0 for none."""
        inputs = {
            "input_ids": prompt.input_ids[None],
            "attention_mask": torch.ones_like(prompt.input_ids)[None],
            "pixel_values_videos": prompt.pixel_values,
            "video_grid_thw": prompt.grid_thw,
            "video_merge_sizes": prompt.merge_sizes,
            "video_compression_mask": prompt.compression_mask,
        }
        with self._merged(inputs, self._states.get(slot)) as gates:
            out = self._model.generate(
                **inputs,
                max_new_tokens=self._longest,
                do_sample=False,
                return_dict_in_generate=True,
                output_logits=True,
            )
        ids = tuple(out.sequences[0, prompt.tokens :].tolist())
        best = torch.stack(out.logits).squeeze(1).topk(2).values  # (tokens, 2)
        stopped = ids[-1] in self._model.generation_config.eos_token_id
        tokens = Tokens(ids[:-1] if stopped else ids, stopped)
        return StockAnswer(tokens, gates, float((best[:, 0] - best[:, 1]).min()))

    @contextmanager
    def _merged(self, inputs: dict[str, Tensor], state: AdapterState | None) -> Iterator[Gates]:
        """The weights merged for the gates that this prompt gets, for the block; yields those gates.

        A layer is merged in the very prefill that computes its gate, when its input arrives: it depends on
        the layers below, which are merged by then.
        """
        gates: Gates = {}
        if state is None:
            yield gates
            return
        before = {name: self._module(name).weight.clone() for name in state.layers}
        hooks = [
            self._module(name).register_forward_pre_hook(
                lambda module, args, name=name: gates.update({name: _merge(module, args[0], state, name)})
            )
            for name in state.layers
        ]
        self._model(**inputs)
        for hook in hooks:
            hook.remove()
        try:
            yield gates
        finally:
            for name, weight in before.items():
                self._module(name).weight.copy_(weight)

    def _module(self, name: str) -> nn.Module:
        return self._model.get_submodule(name)


def _merge(module: nn.Module, x: Tensor, state: AdapterState, name: str) -> Tensor:
    """W becomes W + c·s·Σ_k g_k B_k A_k; returns g (K,) = softmax((G z + b) / τ), z the mean row of x."""
    layer: LayerState = state.layers[name]
    config: GroupConfig = state.groups[state.group_of[name]]
    z = x.reshape(-1, layer.G.shape[1]).mean(0)  # (in,), of all rows: there is one video, without padding
    g = torch.softmax((layer.G @ z + layer.b) / config.temperature, -1)
    scale = _fusion(state, name) * config.lora_alpha / config.rank
    for k in range(config.experts):
        own = slice(k * config.rank, (k + 1) * config.rank)
        product = layer.B[:, own].flatten(1) @ layer.A[own].flatten(1)  # (out, in)
        module.weight += scale * g[k] * product.view_as(module.weight)
    return g


def _fusion(state: AdapterState, name: str) -> float:
    """c_temporal = 2α, c_spatial = 2(1 − α), α = sigmoid(a); 1 for an adapter of one group."""
    if len(state.groups) == 1:
        return 1.0
    alpha = 1 / (1 + math.exp(-state.a))
    return 2 * alpha if state.group_of[name] == "temporal" else 2 * (1 - alpha)
