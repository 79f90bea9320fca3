"""The two forward passes of generation: a prompt with its video, and one more token for everybody in flight."""

from collections.abc import Sequence as Ordered
from contextlib import nullcontext

import torch
from transformers import DynamicCache, VideoLlama3ForConditionalGeneration

from milora import GateRecord, MiloraModel, Routing
from workers.batch import Batch, Sequence
from workers.prompt import Prompt


class ModelPass:
    """Runs the backbone, with the experts of whichever adapters the requests use."""

    def __init__(self, model: VideoLlama3ForConditionalGeneration, experts: MiloraModel | None) -> None:
        self._model = model
        self._experts = experts
        self._device = model.device

    @torch.inference_mode()
    def prefill(self, sequences: list[Sequence]) -> tuple[Batch, torch.Tensor]:
        """Vision tower and prompts of all `sequences` in one pass; every gate is computed here, once.

        Returns the batch, and the logits (B, V) that follow each prompt.
        """
        prompts = [sequence.request.prompt for sequence in sequences]
        ids, mask = self._left_padded(prompts)  # (B, T)
        cache = DynamicCache(config=self._model.config)
        slots = [sequence.request.slot for sequence in sequences]
        routing = self._route(slots, mask, prompts)
        with self._experts.use(routing) if self._experts and routing else nullcontext():
            out = self._model.model(
                input_ids=ids,
                attention_mask=mask,
                position_ids=(mask.cumsum(1) - 1).clamp(min=0),
                past_key_values=cache,
                use_cache=True,
                **self._vision_inputs(prompts),
            )
        if self._experts and routing:
            for sequence, record in zip(sequences, self._experts.records(routing), strict=True):
                sequence.gates = record
        return Batch(list(sequences), cache, mask), self._model.lm_head(out.last_hidden_state[:, -1])

    @torch.inference_mode()
    def decode_step(self, batch: Batch, routing: Routing | None) -> torch.Tensor:
        """One position further for every row; returns the logits (B, V). `routing` comes from `reuse`."""
        last = [[sequence.generated[-1]] for sequence in batch.sequences]
        mask = torch.cat([batch.mask, batch.mask.new_ones(len(batch), 1)], dim=1)
        with self._experts.use(routing) if self._experts and routing else nullcontext():
            out = self._model.model(
                input_ids=torch.tensor(last, device=self._device),  # (B, 1)
                attention_mask=mask,
                position_ids=mask.sum(1, keepdim=True) - 1,
                past_key_values=batch.cache,
                use_cache=True,
            )
        batch.mask = mask
        return self._model.lm_head(out.last_hidden_state[:, -1])

    @torch.inference_mode()
    def video_features(self, prompt: Prompt) -> torch.Tensor:
        """(D,) mean over a video's tokens of what the frozen tower, without any adapter, makes of it."""
        out = self._model.model.vision_model(
            pixel_values=prompt.pixel_values.to(self._device),
            grid_thw=prompt.grid_thw.to(self._device),
            merge_sizes=prompt.merge_sizes.to(self._device),
        )
        return out.last_hidden_state.float().mean(0).cpu()

    @torch.inference_mode()
    def reuse(self, sequences: Ordered[Sequence]) -> Routing | None:
        """The routing for decode steps over these sequences, valid as long as the batch stays the same."""
        records = [sequence.gates for sequence in sequences]
        if self._experts is None or all(record is None or record.slot == 0 for record in records):
            return None
        return self._experts.reuse([self._or_blank(record, records) for record in records])

    @staticmethod
    def _or_blank(record: GateRecord | None, records: list[GateRecord | None]) -> GateRecord:
        """A row for a sequence that was prefilled while no adapter was in its batch."""
        if record is not None:
            return record
        like = next(other for other in records if other is not None)
        return GateRecord(0, (None,) * len(like.layers), torch.zeros_like(like.gates))

    def _route(self, slots: list[int], mask: torch.Tensor, prompts: list[Prompt]) -> Routing | None:
        if self._experts is None or not any(slots):
            return None
        return self._experts.route(
            slots, prompt_mask=mask.bool(), patches=[prompt.patches for prompt in prompts]
        )

    def _left_padded(self, prompts: list[Prompt]) -> tuple[torch.Tensor, torch.Tensor]:
        """Token ids and mask, (B, T) each. What stands under the padding is never looked at."""
        longest = max(prompt.tokens for prompt in prompts)
        ids = torch.zeros(len(prompts), longest, dtype=torch.long)
        mask = torch.zeros_like(ids)
        for row, prompt in enumerate(prompts):
            ids[row, longest - prompt.tokens :] = prompt.input_ids
            mask[row, longest - prompt.tokens :] = 1
        return ids.to(self._device), mask.to(self._device)

    def _vision_inputs(self, prompts: list[Prompt]) -> dict[str, torch.Tensor]:
        """The patches of all videos packed into one sequence, in the order of the rows."""
        return {
            "pixel_values_videos": torch.cat([prompt.pixel_values for prompt in prompts]).to(self._device),
            "video_grid_thw": torch.cat([prompt.grid_thw for prompt in prompts]).to(self._device),
            "video_merge_sizes": torch.cat([prompt.merge_sizes for prompt in prompts]).to(self._device),
            "video_compression_mask": torch.cat([prompt.compression_mask for prompt in prompts]).to(
                self._device
            ),
        }
