"""More domains than slots: what going round a hundred of them costs beside eight that stay."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path

from prometheus_client import CollectorRegistry

from benchmarks.case import Case, demo_case
from benchmarks.goals import ROTATION
from benchmarks.plan import Plan
from benchmarks.report import Comparison
from benchmarks.side_by_side import Figures, Metric, take_turns
from benchmarks.subject import Subject
from milora import AdapterBank, inject
from model_store.publish import publish
from model_store.registry import AdapterRegistry
from workers.adapter_desk import AdapterDesk
from workers.control import JobControl
from workers.engine import Engine, EngineLimits
from workers.metrics import WorkerMetrics
from workers.request import EngineRequest
from workers.settings import WorkerSettings

RATE = Metric("answers", "tokens/s")
FEW = 8
SHORTEST, SPAN = 16, 24
"""Answers have 16 to 39 tokens, so that requests end and join between each other's steps."""
JOB_S = 600.0


@dataclass(frozen=True)
class Sizes:
    """Of one worker: rows of its engine, adapter slots, and jobs that it takes at once."""

    rows: int
    slots: int
    jobs: int

    def __str__(self) -> str:
        return f"{self.rows} rows, {self.slots} slots"


@dataclass(frozen=True)
class Serving:
    """What a worker answers with, its decoding apart."""

    case: Case
    engine: Engine
    desk: AdapterDesk
    jobs: int


def rotation(subject: Subject, plan: Plan) -> Comparison:
    """The demo model and its adapters under many names, through the desk that a worker's jobs go through."""
    case = demo_case(subject, plan).endless()
    registry = _many(subject, plan.rotation_domains, subject.scratch / "rotation")
    every = registry.domains()
    few = every[:FEW]
    many, eight = f"{len(every)} domains in rotation", f"{len(few)} domains"
    settings = WorkerSettings()
    ahead = settings.decode_processes or os.cpu_count() or 1
    small = Sizes(FEW, FEW, FEW + ahead)
    shipped = Sizes(settings.slots, settings.resident_adapters, settings.slots + ahead)
    with _serving(case, registry, small, settings) as on, _serving(case, registry, shipped, settings) as wide:

        def arm(serving: Serving, domains: Sequence[str]) -> Figures:
            if len(domains) == FEW:  # the other arm has evicted them; that is not theirs to pay
                _answer(serving, domains, FEW)
            return {RATE: _answer(serving, domains, plan.rotation_requests)}

        samples = take_turns(
            {
                eight: lambda _: arm(on, few),
                many: lambda _: arm(on, every),
                f"{eight}, {shipped}": lambda _: arm(wide, few),
                f"{many}, {shipped}": lambda _: arm(wide, every),
            },
            rounds=plan.rotation_rounds,
        )
    return Comparison(
        key="rotation",
        title="A hundred domains in eight slots",
        how=f"{plan.rotation_requests} requests of {SHORTEST} to {SHORTEST + SPAN - 1} new tokens a round, each for "
        f"the next domain in turn, {small.jobs} jobs at once for {small}, and {shipped.jobs} for the {shipped} of a "
        "worker as shipped. "
        "They go through the worker's desk: a job has its adapter brought up ahead, finds its newest version on disk, "
        "pins it in a slot, from host memory where it is not resident, and lets go of it when it is answered. Videos "
        "are decoded beforehand.",
        rows=(
            samples.row(many, eight, RATE, model=case.name, goal=ROTATION),
            samples.row(f"{many}, {shipped}", f"{eight}, {shipped}", RATE, model=case.name),
        ),
    )


def _many(subject: Subject, count: int, root: Path) -> AdapterRegistry:
    """The measured adapters, published under `count` names."""
    registry = AdapterRegistry([root])
    for number, entry in enumerate(islice(cycle(subject.entries), count)):
        files = {name: (entry.path / name).read_bytes() for name in entry.manifest.files}
        draft = entry.manifest.draft().model_copy(update={"domain": f"domain-{number}"})
        publish(registry, root, files, draft)
    return registry


@contextmanager
def _serving(
    case: Case, registry: AdapterRegistry, sizes: Sizes, settings: WorkerSettings
) -> Iterator[Serving]:
    """Engine, bank and desk as a worker starts them, on a twin of the case's model; ended with the block."""
    backbone = case.twin()
    handle = inject(backbone.model, case.room, slots=sizes.slots)
    engine = Engine(backbone, handle, EngineLimits(max_batch=sizes.rows))
    desk = AdapterDesk(
        registry,
        backbone,
        AdapterBank(handle),
        WorkerMetrics(CollectorRegistry()),
        host_bytes=settings.adapter_host_bytes,
        recognition_bytes=settings.recognition_bytes,
    )
    engine.start()
    try:
        yield Serving(case, engine, desk, sizes.jobs)
    finally:
        engine.close()
        handle.remove()


def _answer(on: Serving, domains: Sequence[str], requests: int) -> float:
    """Tokens a second over `requests` requests, from the first one's begin to the last one's end."""
    clips = on.case.clips

    def job(number: int, domain: str) -> int:
        on.desk.prefetch(domain, None)
        prompt, tokens = clips[number % len(clips)].prompt, SHORTEST + 7 * number % SPAN
        with on.desk.pinned(domain, None, JobControl(str(number), JOB_S)) as adapter:
            request = EngineRequest(prompt, tokens, slot=adapter.slot)
            return on.engine.submit(request).result().completion_tokens

    began = time.perf_counter()
    with ThreadPoolExecutor(on.jobs) as jobs:
        tokens = sum(jobs.map(job, range(requests), islice(cycle(domains), requests)))
    return tokens / (time.perf_counter() - began)
