"""What happens once for a request: its video through the vision tower, its prompt through the language model.

Every gate of the request is computed here, and kept (prompt-aware routing, arXiv 2410.18035).
"""

from collections.abc import Hashable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from transformers import DynamicCache, VideoLlama3ForConditionalGeneration
from transformers.modeling_outputs import BaseModelOutputWithPooling

from milora import GateRecord, MiloraModel, Routing
from workers.prompt import Prompt
from workers.vision_cache import Seen, VisionCache


@dataclass(frozen=True)
class Look:
    """One video to be looked at with the experts of a slot; `key` names the outcome, None is not remembered."""

    prompt: Prompt
    slot: int = 0
    key: Hashable | None = None


@dataclass(frozen=True, eq=False)
class Prefilled:
    """B prompts as the model remembers them.

    cache holds keys and values (B, Hkv, T, D) per layer, each request's own positions first; logits (B, V) follow
    each prompt; gates has one record a request, None where no request has an adapter.
    """

    cache: DynamicCache
    logits: Tensor
    gates: list[GateRecord | None]


class Prefill:
    """Runs prompts through the backbone, with the experts of whichever adapters the requests use."""

    def __init__(
        self,
        model: VideoLlama3ForConditionalGeneration,
        experts: MiloraModel | None,
        vision: VisionCache,
    ) -> None:
        self._model = model
        self._experts = experts
        self._vision = vision
        self._device = model.device

    def __call__(self, looks: Sequence[Look]) -> Prefilled:
        """Vision tower and prompts of all these requests."""
        return self.read(looks, self.see(looks))

    @torch.no_grad()
    def see(self, looks: Sequence[Look]) -> list[Seen]:
        """Every video as its own slot's spatial experts see it; what was seen before, and what stands here twice, is
        not looked at again."""
        found = [self._vision.get(look.key) for look in looks]
        new: dict[Hashable, Look] = {}
        for number, (look, seen) in enumerate(zip(looks, found, strict=True)):
            if seen is None:
                new.setdefault(_name(look, number), look)
        fresh = dict(zip(new, self._tower(list(new.values())) if new else [], strict=True))
        return [seen or fresh[_name(looks[number], number)] for number, seen in enumerate(found)]

    def _tower(self, looks: Sequence[Look]) -> list[Seen]:
        prompts = [look.prompt for look in looks]
        routing = self._route(looks, patches=[prompt.patches for prompt in prompts])
        with self._using(routing):
            out = self._model.model.get_video_features(
                torch.cat([prompt.pixel_values for prompt in prompts]).to(self._device),
                torch.cat([prompt.grid_thw for prompt in prompts]).to(self._device),
                torch.cat([prompt.merge_sizes for prompt in prompts]).to(self._device),
                return_dict=True,
            )
        features = out.last_hidden_state.split([len(tokens) for tokens in out.pooler_output])
        seen = []
        for look, tokens, own, gates in zip(
            looks, out.pooler_output, features, self._records(routing, len(looks)), strict=True
        ):
            kept = tokens[look.prompt.compression_mask.to(self._device)]  # a copy: it outlives the batch
            seen.append(Seen(kept, own.mean(0, dtype=torch.float32).cpu(), gates))
            self._vision.put(look.key, seen[-1])
        return seen

    @torch.no_grad()
    def read(self, looks: Sequence[Look], seen: Sequence[Seen]) -> Prefilled:
        """Every prompt, its video already seen, through the language model.

        Prompts are padded behind their end: causal attention never looks there, so no mask is needed.
        """
        prompts = [look.prompt for look in looks]
        ids, own = self._padded(prompts)  # (B, T) each
        routing = self._route(looks, prompt_mask=own)
        cache = DynamicCache(config=self._model.config)
        vision = BaseModelOutputWithPooling(pooler_output=tuple(video.tokens for video in seen))
        with self._using(routing):
            out = self._model.model(
                input_ids=ids,
                position_ids=torch.arange(ids.shape[1], device=self._device).unsqueeze(0),
                mm_encoder_outputs={"video": vision},
                cache=cache,
                use_cache=True,
            )
        last = torch.tensor([prompt.tokens - 1 for prompt in prompts], device=self._device)
        hidden = out.last_hidden_state[torch.arange(len(prompts), device=self._device), last]  # (B, H)
        records = zip(looks, self._records(routing, len(looks)), seen, strict=True)
        gates = [_whole(look.slot, own_gates, video.gates) for look, own_gates, video in records]
        return Prefilled(cache, self._model.lm_head(hidden), gates)

    def _route(self, looks: Sequence[Look], **rows: object) -> Routing | None:
        slots = [look.slot for look in looks]
        return self._experts.route(slots, **rows) if self._experts is not None and any(slots) else None

    def _using(self, routing: Routing | None):
        return nullcontext() if routing is None else self._experts.use(routing)

    def _records(self, routing: Routing | None, videos: int) -> list[GateRecord | None]:
        return [None] * videos if routing is None else list(self._experts.records(routing))

    def _padded(self, prompts: Sequence[Prompt]) -> tuple[Tensor, Tensor]:
        """Token ids, and which of them are a prompt's own."""
        longest = max(prompt.tokens for prompt in prompts)
        ids = torch.zeros(len(prompts), longest, dtype=torch.long)
        own = torch.zeros(len(prompts), longest, dtype=torch.bool)
        for row, prompt in enumerate(prompts):
            ids[row, : prompt.tokens] = prompt.input_ids
            own[row, : prompt.tokens] = True
        return ids.to(self._device), own.to(self._device)


def _name(look: Look, number: int) -> Hashable:
    """What tells a look from the others of its pass: its key, or its place where the outcome is not remembered."""
    return (number,) if look.key is None else (None, look.key)


def _whole(slot: int, prompt: GateRecord | None, tower: GateRecord | None) -> GateRecord | None:
    """A request's gates in both parts of the model; those of the tower may come from an earlier request."""
    if slot == 0 or prompt is None:
        return None
    return prompt if tower is None else prompt.joined(replace(tower, slot=slot))
