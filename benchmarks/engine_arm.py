"""The worker's engine as an arm of a comparison: requests together, and one after another."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from benchmarks.case import Case, Prompted
from benchmarks.side_by_side import Figures, Metric
from milora import AdapterBank, inject
from workers.engine import Engine, EngineLimits
from workers.request import EngineAnswer, EngineRequest, Report

WHOLE = Metric("whole answers", "tokens/s")
DECODE = Metric("decode steps alone", "tokens/s")
PREFILL = Metric("prefill", "ms", higher_is_better=False)


@dataclass(frozen=True)
class Running:
    """An engine at work; `slots` says where each domain's adapter is resident, `bank` is None without experts."""

    case: Case
    engine: Engine
    bank: AdapterBank | None
    slots: dict[str, int]

    @property
    def clips(self) -> tuple[Prompted, ...]:
        return self.case.clips


@dataclass(frozen=True)
class Ask:
    """One request to come: a clip, and the slot of the adapter that answers, 0 for none."""

    clip: Prompted
    slot: int


@dataclass(frozen=True)
class Round:
    """The answers to some asks, in their order, and the seconds until the last was there."""

    answers: list[EngineAnswer]
    seconds: float

    @property
    def tokens_per_second(self) -> float:
        return sum(answer.completion_tokens for answer in self.answers) / self.seconds

    @property
    def texts(self) -> list[str]:
        return [answer.text for answer in self.answers]

    def figures(self) -> Figures:
        """Of requests that were prefilled together and all have the same number of tokens."""
        steps = sum(
            answer.completion_tokens - 1 for answer in self.answers
        )  # the first token is the prefill's
        return {
            WHOLE: self.tokens_per_second,
            DECODE: steps / max(answer.generate_s for answer in self.answers),
            PREFILL: 1000 * max(answer.prefill_s for answer in self.answers),
        }


Way = Callable[[Running, Sequence[Ask], int], Round]


@contextmanager
def running(
    case: Case, *, experts: bool = True, slots: int = 8, tensor_threads: int | None = None
) -> Iterator[Running]:
    """The engine as a worker starts it, on a twin of the case's model; ended with the block.

    The first `slots` domains are resident. Without `experts` nothing is beside the frozen layers at all.
    """
    backbone = case.twin()
    handle = inject(backbone.model, case.room, slots=slots) if experts else None
    bank = AdapterBank(handle) if handle else None
    resident = list(case.adapters.items())[:slots] if bank else []
    places = {domain: bank.acquire(domain, lambda state=state: state) for domain, state in resident}
    limits = EngineLimits(max_batch=max(8, len(case.clips)))
    engine = Engine(backbone, handle, limits, tensor_threads=tensor_threads)
    engine.start()
    try:
        yield Running(case, engine, bank, places)
    finally:
        engine.close()
        if handle:
            handle.remove()


@contextmanager
def alone(make: Callable[[], Case], *, experts: bool = True) -> Iterator[Running]:
    """The same in a process that does nothing else: as in a worker, all tensor threads are the engine's."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with running(make(), experts=experts, tensor_threads=threads) as on:
        yield on


def own_domains(on: Running) -> list[Ask]:
    """Every clip to the adapter of its own domain, the slots in order."""
    return [Ask(clip, on.slots[clip.domain]) for clip in on.clips]


def in_any_order(on: Running, turn: int) -> list[Ask]:
    """The same with the slots in an order that is drawn: another each turn, the same in every run."""
    return random.Random(turn).sample(own_domains(on), len(on.clips))


def lopsided(on: Running) -> list[Ask]:
    """All clips but one to the adapter of the first slot, one to that of the last."""
    *most, last = on.clips
    first_slot, last_slot = min(on.slots.values()), max(on.slots.values())
    return [*(Ask(clip, first_slot) for clip in most), Ask(last, last_slot)]


def one_slot(on: Running, slot: int) -> list[Ask]:
    """Every clip to the same adapter, or to none."""
    return [Ask(clip, slot) for clip in on.clips]


def together(on: Running, asks: Sequence[Ask], tokens: int, on_token: Report | None = None) -> Round:
    """All at once, so that one prefill takes all. `on_token` hears of the first one's progress."""
    heard = [{"on_token": on_token} if on_token and number == 0 else {} for number in range(len(asks))]
    requests = [
        EngineRequest(ask.clip.prompt, tokens, slot=ask.slot, **more)
        for ask, more in zip(asks, heard, strict=True)
    ]
    began = time.perf_counter()
    futures: list[Future[EngineAnswer]] = on.engine.submit_all(requests)
    answers = [future.result() for future in futures]
    return Round(answers, time.perf_counter() - began)


def one_by_one(on: Running, asks: Sequence[Ask], tokens: int) -> Round:
    """Each is submitted when the one before is answered."""
    requests = [EngineRequest(ask.clip.prompt, tokens, slot=ask.slot) for ask in asks]
    began = time.perf_counter()
    answers = [on.engine.submit(request).result() for request in requests]
    return Round(answers, time.perf_counter() - began)
