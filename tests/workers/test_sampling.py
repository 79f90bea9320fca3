"""Choosing tokens: what `generate` does, for all rows at once."""

from __future__ import annotations

import logging
from types import SimpleNamespace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import GenerationConfig

from model_store.backbone import Backbone
from workers.sampling import NOT_FINITE, Chooser, Sampling

VOCABULARY, STOP = 300, 7
CONFIGS = [
    {},
    {"temperature": 0.7, "top_k": 20, "top_p": 0.8, "repetition_penalty": 1.05},
    {"temperature": 1.5, "top_k": 0, "top_p": 0.9},
    {"top_k": 1},
    {"top_p": 1e-6},
    {"suppress_tokens": [3, 4], "min_new_tokens": 5, "repetition_penalty": 0.8},
]


def row_of(seed: int, *, answered: int = 3, draws: list[float] | None = None) -> SimpleNamespace:
    """A sequence with a prompt and an answer of its own."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(0, VOCABULARY, (5 + seed,), generator=generator)
    prompt = SimpleNamespace(tokens=len(ids), input_ids=ids)
    generated = torch.randint(0, VOCABULARY, (answered,), generator=generator).tolist()
    return SimpleNamespace(request=SimpleNamespace(prompt=prompt), generated=generated, draws=draws)


def chooser_of(rows: list[SimpleNamespace], **config: object) -> Chooser:
    sampling = Sampling.of(GenerationConfig(eos_token_id=STOP, **config))
    chooser = Chooser(sampling, rows=len(rows), length=40, device=torch.device("cpu"))
    for number, row in enumerate(rows):
        prompt = row.request.prompt
        chooser.join(number, prompt.input_ids)
        for place, token in enumerate(row.generated, start=prompt.tokens):
            chooser.note(number, torch.tensor([place]), torch.tensor([token]))
    return chooser


def logits_of(rows: int) -> torch.Tensor:
    return torch.randn(rows, VOCABULARY, generator=torch.Generator().manual_seed(0)) * 3


@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_every_row_is_sampled_from_what_generate_samples_from(backbone: Backbone, config: dict) -> None:
    rows, logits = [row_of(seed) for seed in range(4)], logits_of(4)
    chooser = chooser_of(rows, **config)
    probabilities, ids = chooser.likeliest(chooser.processed(rows, 0, logits.clone()))
    for number, row in enumerate(rows):
        stock, _ = backbone.model._prepare_generation_config(
            GenerationConfig(eos_token_id=STOP, do_sample=True, **config)
        )
        backbone.model._prepare_special_tokens(stock, True)
        prompt = row.request.prompt
        processors = backbone.model._get_logits_processor(stock, input_ids_seq_length=prompt.tokens)
        seen = torch.cat([prompt.input_ids, torch.tensor(row.generated)])[None]
        expected = processors(seen, logits[number, None].clone()).softmax(-1)[0]
        found = torch.zeros(VOCABULARY, dtype=torch.double).index_add(0, ids[number], probabilities[number])
        torch.testing.assert_close((found / found.sum()).float(), expected, rtol=1e-5, atol=1e-7)


def test_a_row_draws_as_often_as_it_is_likely() -> None:
    row, draws = row_of(0), 20_000
    chooser = chooser_of([row], top_k=5)
    probabilities, ids = chooser.likeliest(logits_of(1))
    evenly = (torch.arange(draws, dtype=torch.double) + 0.5) / draws
    drawn = chooser._drawn(logits_of(1).expand(draws, -1), evenly)
    shares = torch.stack([(drawn == token).double().mean() for token in ids[0]])
    torch.testing.assert_close(shares, probabilities[0], rtol=0, atol=1e-4)


@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_a_row_gets_the_token_that_it_gets_alone(config: dict) -> None:
    rows = [row_of(seed, draws=[0.1 + 0.2 * seed] * 4 if seed % 2 else None) for seed in range(4)]
    logits = logits_of(4)
    together = chooser_of(rows, **config).choose(rows, 0, logits.clone()).tolist()
    alone = [
        chooser_of([row], **config).choose([row], 0, logits[number, None].clone()).item()
        for number, row in enumerate(rows)
    ]
    assert together == alone
    chooser = chooser_of(rows, **config)
    assert chooser.choose(rows[2:], 2, logits[2:].clone()).tolist() == together[2:]


def test_rows_that_are_not_finite_are_told_apart() -> None:
    rows = [row_of(seed, draws=[0.5] * 4 if seed % 2 else None) for seed in range(4)]
    logits = logits_of(4)
    logits[0, 9] = torch.nan
    logits[1, 9] = torch.inf
    chosen = chooser_of(rows).choose(rows, 0, logits).tolist()
    assert chosen[:2] == [NOT_FINITE, NOT_FINITE]
    assert min(chosen[2:]) >= 0


class Fetches(TorchDispatchMode):
    """Counts how often a number is fetched from a tensor."""

    count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.count += function is torch.ops.aten._local_scalar_dense.default
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_choosing_fetches_nothing_from_the_device(config: dict) -> None:
    rows = [row_of(seed, draws=[0.5] * 4 if seed else None) for seed in range(4)]
    chooser = chooser_of(rows, **config)
    with Fetches() as fetches:
        chooser.choose(rows, 0, logits_of(4))
    assert fetches.count == 0


def test_where_a_checkpoint_says_nothing_it_is_sampled_as_generate_does() -> None:
    sampling, stock = Sampling.of(GenerationConfig()), GenerationConfig._get_default_generation_params()
    assert {name: getattr(sampling, name) for name in ("temperature", "top_k", "top_p")} == {
        name: stock[name] for name in ("temperature", "top_k", "top_p")
    }


def test_what_a_checkpoint_asks_for_and_is_not_done_is_said(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR):
        Sampling.of(GenerationConfig(do_sample=True, num_beams=1, top_k=5, bos_token_id=1))
    assert not caplog.records
    with caplog.at_level(logging.ERROR):
        Sampling.of(GenerationConfig(no_repeat_ngram_size=3, bad_words_ids=[[4]]))
    assert "'no_repeat_ngram_size': 3" in caplog.text
    assert "bad_words_ids" in caplog.text
