"""How good the model is on held-out clips while it learns: exact answers and ROUGE-L."""

from collections import defaultdict
from dataclasses import dataclass

from rouge_score.rouge_scorer import RougeScorer
from transformers import PreTrainedTokenizerFast

from training.backbone.batches import collate
from training.backbone.decoding import greedy
from training.backbone.design import design_of
from training.backbone.forward import LanguageForward
from training.backbone.pixels import normalize
from training.backbone.recipe import Recipe
from training.backbone.rendering import Sample, render_sample
from training.backbone.tokenizer import TURN_END


@dataclass(frozen=True)
class Quality:
    """Shares 0..1 over ``clips`` clips, and one example."""

    clips: int
    exact: float
    rouge_l: float
    example: str
    reference: str


def validation_samples(recipe: Recipe, clips: int, split: str = "validation") -> list[Sample]:
    """The first clips of a split."""
    return [render_sample(recipe.domain, seed, split) for seed in range(clips)]


def answer_samples(
    fast: LanguageForward,
    tokenizer: PreTrainedTokenizerFast,
    samples: list[Sample],
    instruction: str,
    limit: int = 80,
) -> list[str]:
    """Greedy answers in the order of ``samples``."""
    by_frames: dict[int, list[int]] = defaultdict(list)
    for index, sample in enumerate(samples):
        by_frames[len(sample.times_s)].append(index)
    answers = [""] * len(samples)
    for members in by_frames.values():
        batch = collate([samples[i] for i in members], tokenizer, instruction, design_of(fast.model))
        pictures = fast.pictures(normalize(batch.frames))
        end = tokenizer.convert_tokens_to_ids(TURN_END)
        texts = tokenizer.batch_decode(greedy(fast, pictures, batch.prompt, end=end, limit=limit))
        for index, text in zip(members, texts, strict=True):
            answers[index] = text.strip()
    return answers


def measure(
    fast: LanguageForward, tokenizer: PreTrainedTokenizerFast, samples: list[Sample], instruction: str
) -> Quality:
    """Exact match and ROUGE-L of the greedy answers."""
    answers = answer_samples(fast, tokenizer, samples, instruction)
    scorer = RougeScorer(["rougeL"])
    scores = [scorer.score(s.summary, a)["rougeL"].fmeasure for s, a in zip(samples, answers, strict=True)]
    exact = [s.summary == a for s, a in zip(samples, answers, strict=True)]
    count = len(samples)
    return Quality(count, sum(exact) / count, sum(scores) / count, answers[0], samples[0].summary)
