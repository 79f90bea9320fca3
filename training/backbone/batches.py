"""Rendered clips as batches of tensors: equal frame counts together, so that nothing but answers is padded."""

import random
from collections import defaultdict
from dataclasses import dataclass, fields

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from training.backbone.dense_labels import FrameLabels
from training.backbone.design import VIDEO_LLAMA_3, Design
from training.backbone.recipe import Recipe
from training.backbone.rendering import Sample
from training.backbone.tokenizer import TURN_END


@dataclass(frozen=True)
class Batch:
    """``B`` clips of ``T`` frames each."""

    frames: Tensor  # (B, T, 48, 64, 3) uint8
    prompt: Tensor  # (B, P) token ids
    answer: Tensor  # (B, A) token ids, the end of turn included, padded on the right
    lengths: Tensor  # (B,) tokens of each answer
    labels: dict[str, Tensor] | None = None  # each (B * T, ...)

    @property
    def clips(self) -> int:
        return self.frames.shape[0]


def group_samples(samples: list[Sample], recipe: Recipe, seed: int) -> list[list[Sample]]:
    """Samples split into steps in a shuffled order that ``seed`` fixes; remainders under half a step are left out."""
    shuffle = random.Random(seed)
    by_frames: dict[int, list[Sample]] = defaultdict(list)
    for sample in samples:
        by_frames[len(sample.times_s)].append(sample)
    groups = []
    for frames, members in sorted(by_frames.items()):
        members.sort(key=lambda sample: (sample.summary.count("."), sample.seed))
        size = recipe.clips_per_step(frames)
        cuts = [members[i : i + size] for i in range(0, len(members), size)]
        groups += [cut for cut in cuts if 2 * len(cut) >= size]
    shuffle.shuffle(groups)
    return groups


def collate(
    samples: list[Sample],
    tokenizer: PreTrainedTokenizerFast,
    instruction: str,
    design: Design = VIDEO_LLAMA_3,
) -> Batch:
    """Tensors of samples of one frame count; the last frame is shown again where a token of it would lack one.

    Raises:
        ValueError: the prompts are not of one length, which the fast forward pass relies on.
    """
    prompts = encode(tokenizer, [design.prompt(s.times_s, instruction) for s in samples])
    if len({len(prompt) for prompt in prompts}) != 1:
        raise ValueError("prompts of one batch must have one length")
    answers = encode(tokenizer, [s.summary + TURN_END for s in samples])
    lengths = torch.tensor([len(answer) for answer in answers])
    padded = torch.full((len(answers), int(lengths.max())), tokenizer.pad_token_id)
    for row, answer in enumerate(answers):
        padded[row, : len(answer)] = torch.tensor(answer)
    count = len(samples[0].times_s)
    shown = [*range(count), *[count - 1] * (-count % design.frames_a_token)]
    frames = torch.stack([torch.from_numpy(s.frames[shown]) for s in samples])
    labels = None if samples[0].labels is None else _stack_labels([s.labels for s in samples], shown)
    return Batch(frames, torch.tensor(prompts), padded, lengths, labels)


def encode(tokenizer: PreTrainedTokenizerFast, texts: list[str]) -> list[list[int]]:
    """Token ids without anything added."""
    return tokenizer(texts, add_special_tokens=False).input_ids


def pick_instruction(recipe: Recipe, seed: int) -> str:
    """The default prompt most of the time, now and then another wording of it."""
    rng = random.Random(seed)
    if rng.random() < recipe.default_instruction_share:
        return recipe.instructions[0]
    return rng.choice(recipe.instructions[1:])


def _stack_labels(labels: list[FrameLabels | None], shown: list[int]) -> dict[str, Tensor]:
    names = [field.name for field in fields(FrameLabels)]
    return {
        name: torch.cat([torch.from_numpy(getattr(item, name)[shown]) for item in labels]) for name in names
    }
