"""Text-only exercises: words to be repeated. They give every token of the vocabulary a trained embedding.

Summaries of the general world use a small part of the vocabulary. Tokens that never occur would keep random
embeddings, pushed away as answers, and the frozen backbone would be a poor ground for experts with other words.
"""

import random
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from training.backbone.english import random_phrase
from training.backbone.tokenizer import TURN_END, TURN_START


@dataclass(frozen=True)
class Repetition:
    """``B`` exercises of one length."""

    prompt: Tensor  # (B, P)
    answer: Tensor  # (B, A), the end of turn included
    lengths: Tensor  # (B,)


def make_repetition(tokenizer: PreTrainedTokenizerFast, sequences: int, seed: int) -> Repetition:
    """Exercises of 12 to 40 tokens: mostly phrases, one in eight single tokens at random, bytes included."""
    rng = random.Random(seed)
    length = rng.randint(12, 40)
    head = _ids(tokenizer, f"{TURN_START}user\nRepeat:")
    tail = _ids(tokenizer, f"{TURN_END}\n{TURN_START}assistant\n")
    plain = sorted(set(range(len(tokenizer))) - set(tokenizer.all_special_ids))
    bodies = []
    for index in range(sequences):
        if index % 8 == 0:
            bodies.append([rng.choice(plain) for _ in range(length)])
        else:
            bodies.append(_ids(tokenizer, " " + random_phrase(rng, length))[:length])
    end = tokenizer.convert_tokens_to_ids(TURN_END)
    prompt = torch.tensor([head + body + tail for body in bodies])
    answer = torch.tensor([[*body, end] for body in bodies])
    return Repetition(prompt, answer, torch.full((sequences,), length + 1))


def _ids(tokenizer: PreTrainedTokenizerFast, text: str) -> list[int]:
    return tokenizer(text, add_special_tokens=False).input_ids
