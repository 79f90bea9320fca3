"""Any architecture's own processor, forward and `generate` of transformers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers.video_utils import VideoMetadata

from milora import architecture
from training.trainer.method import Method, around_generate
from training.trainer.passes import Pair, Rows

_IGNORED = -100  # what cross-entropy leaves out
_TOGETHER = 8  # answers at a time


@dataclass(frozen=True)
class StockBatch:
    """What the model's forward takes, padded; ``prompt_mask`` (V, T) is true on prompts' own tokens."""

    inputs: dict[str, Tensor]
    prompt_mask: Tensor

    def to(self, device: torch.device) -> StockBatch:
        """The batch on a device."""
        inputs = {name: tensor.to(device) for name, tensor in self.inputs.items()}
        return StockBatch(inputs, self.prompt_mask.to(device))


class StockReader:
    """Pairs as the processor writes them, with labels on the answers' tokens only."""

    def __init__(self, processor) -> None:
        self._processor = processor

    def __call__(self, pairs: Sequence[Pair]) -> StockBatch:
        """Prompts with their answers, padded on the right."""
        tokenizer = self._processor.tokenizer
        prompts = [self._prompt(pair) for pair in pairs]
        tails = [
            [*tokenizer(pair.answer, add_special_tokens=False).input_ids, tokenizer.eos_token_id]
            for pair in pairs
        ]
        lengths = [prompt["input_ids"].shape[1] for prompt in prompts]
        total = max(length + len(tail) for length, tail in zip(lengths, tails, strict=True))
        ids = torch.full((len(pairs), total), tokenizer.pad_token_id)
        labels = torch.full_like(ids, _IGNORED)
        for row, (prompt, tail, length) in enumerate(zip(prompts, tails, lengths, strict=True)):
            ids[row, :length] = prompt["input_ids"][0]
            ids[row, length : length + len(tail)] = labels[row, length : length + len(tail)] = torch.tensor(
                tail
            )
        places = torch.arange(total)
        ends = torch.tensor([n + len(tail) for n, tail in zip(lengths, tails, strict=True)])
        inputs = {"input_ids": ids, "attention_mask": (places < ends[:, None]).long(), "labels": labels}
        return StockBatch(inputs | _stacked(prompts), places < torch.tensor(lengths)[:, None])

    def prompts(self, pairs: Sequence[Pair]) -> StockBatch:
        """Prompts alone, padded on the left, to be answered."""
        prompts = [self._prompt(pair) for pair in pairs]
        total = max(prompt["input_ids"].shape[1] for prompt in prompts)
        ids = torch.full((len(pairs), total), self._processor.tokenizer.pad_token_id)
        mask = torch.zeros_like(ids)
        for row, prompt in enumerate(prompts):
            length = prompt["input_ids"].shape[1]
            ids[row, total - length :] = prompt["input_ids"][0]
            mask[row, total - length :] = 1
        return StockBatch({"input_ids": ids, "attention_mask": mask} | _stacked(prompts), mask.bool())

    def _prompt(self, pair: Pair) -> dict[str, Tensor]:
        content = [{"type": "video"}, {"type": "text", "text": pair.instruction}]
        text = self._processor.apply_chat_template(
            [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False
        )
        frames = torch.from_numpy(np.ascontiguousarray(pair.frames.transpose(0, 3, 1, 2)))  # (T, 3, H, W)
        # With one index a second the processor writes the frames' true times.
        metadata = VideoMetadata(total_num_frames=len(frames), fps=1.0, frames_indices=list(pair.times_s))
        return dict(
            self._processor(
                text=[text],
                videos=[frames],
                video_metadata=[metadata],
                do_resize=False,
                do_sample_frames=False,
                return_tensors="pt",
            )
        )


def _stacked(prompts: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """The pictures of all videos one after the other, as every processor of packed patches gives them."""
    names = set(prompts[0]) - {"input_ids", "attention_mask"}
    return {name: torch.cat([prompt[name] for prompt in prompts]) for name in sorted(names)}


class StockPass:
    """The pass of transformers; labels are masked to the answers."""

    equal_frames = False

    def __init__(self, model: nn.Module, processor) -> None:
        self._model, self._processor = model, processor
        self.read = StockReader(processor)

    def positions(self, frames: int) -> int:
        raise ValueError("tokens_per_batch is for the fast pass; give batch_size")

    def clips(self, batch: StockBatch) -> int:
        return len(batch.prompt_mask)

    def rows(self, batch: StockBatch) -> Rows:
        model = self._model
        counts = architecture(model).counts(model.config, batch.inputs)
        return {"prompt_mask": batch.prompt_mask.to(model.device), **counts}

    def loss(self, batch: StockBatch, noise: torch.Generator | None) -> Tensor:
        """Cross-entropy of the answers' tokens. Logits are computed where answers are: with a vocabulary of 150,000
        those of a whole video would be most of a step's memory."""
        inputs = self._inputs(batch)
        labels = inputs.pop("labels")  # (V, T)
        first = int((labels != _IGNORED).any(0).nonzero()[0])  # an answer's token; it has a prompt before it
        with _head_sees_the_last(self._model, labels.shape[1] - first + 1):
            logits = self._model(**inputs, use_cache=False).logits  # (V, T - first + 1, vocabulary)
        return cross_entropy(
            logits[:, :-1].flatten(0, 1).float(), labels[:, first:].flatten(), ignore_index=_IGNORED
        )

    @torch.no_grad()
    def answers(self, pairs: Sequence[Pair], method: Method, limit: int) -> list[str]:
        answers: list[str] = []
        tokenizer = self._processor.tokenizer
        for start in range(0, len(pairs), _TOGETHER):
            batch = self.read.prompts(pairs[start : start + _TOGETHER])
            with around_generate(self._model, method.decoding(self.rows(batch))):
                ids = self._model.generate(
                    **self._inputs(batch),
                    max_new_tokens=limit,
                    do_sample=False,
                    eos_token_id=tokenizer.eos_token_id,
                    pad_token_id=tokenizer.pad_token_id,
                )
            told = ids[:, batch.prompt_mask.shape[1] :]
            answers += [text.strip() for text in tokenizer.batch_decode(told, skip_special_tokens=True)]
        return answers

    @torch.no_grad()
    def features(self, pair: Pair) -> Tensor:
        inputs = self._inputs(self.read.prompts([pair]))
        tower = self._model.model.vision_model
        seen = tower(
            pixel_values=inputs["pixel_values_videos"],
            grid_thw=inputs["video_grid_thw"],
            merge_sizes=inputs["video_merge_sizes"],
        )
        return seen.last_hidden_state.float().mean(0)

    def _inputs(self, batch: StockBatch) -> dict[str, Any]:
        """The inputs on the model's device, pictures in its type."""
        model = self._model
        return {
            name: tensor.to(model.device, model.dtype)
            if tensor.is_floating_point()
            else tensor.to(model.device)
            for name, tensor in batch.inputs.items()
        }


@contextmanager
def _head_sees_the_last(model: nn.Module, positions: int) -> Iterator[None]:
    """The last positions' logits alone: not every architecture of transformers can be asked for that."""
    head = model.get_output_embeddings()
    hook = head.register_forward_pre_hook(lambda module, args: (args[0][:, -positions:], *args[1:]))
    try:
        yield
    finally:
        hook.remove()
