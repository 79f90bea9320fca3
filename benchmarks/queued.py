"""A queue of videos through the service, and through the RQ workers that a plain team would write."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import cycle, islice
from pathlib import Path

from redis import Redis
from rq.job import JobStatus

from benchmarks.cpu_shares import cpu_breakdown, cpu_seconds
from benchmarks.goals import QUEUE, QUEUE_FORKED
from benchmarks.plain_job import MODEL, SUMMARIZE
from benchmarks.plain_worker import FORKING, PRELOADED, STAYING, open_queue
from benchmarks.plan import Plan
from benchmarks.processes import end, environment, serving, valkey
from benchmarks.report import Comparison
from benchmarks.service import JobFailed, finish, finished_at
from benchmarks.side_by_side import Figures, Metric, take_turns
from benchmarks.subject import ClipFile, Subject
from visum.client import Client, Options

RATE = Metric("jobs", "jobs/minute")
OURS, SIMPLE = "`visum serve`", "RQ SimpleWorker, generate one by one"
FORKED, WARM_FORKED = (
    "RQ Worker, the model loaded in every fork",
    "the same, libraries imported before the fork",
)
PATIENCE_S = 600.0
ROOT = Path(__file__).parents[1]

Summaries = dict[str, str]
"""File name → summary."""


def queued(subject: Subject, plan: Plan) -> Comparison:
    """The same videos for named domains, queued at once; every way has a queue and one worker on this machine."""
    last: dict[str, Summaries] = {}
    spent: list[tuple[Counter[str], float]] = []
    clips = list(islice(cycle(subject.clips), plan.queue_jobs))
    threads = faster_threads(subject, clips[: plan.trial_jobs])

    with (
        serving(subject, subject.scratch / "queued") as (url, serve),
        Client(url) as client,
        plain(subject, STAYING, threads) as simple,
        plain(subject, FORKING, threads) as forking,
        plain(subject, PRELOADED, threads) as preloaded,
    ):

        def ours(number: int) -> Figures:
            some = clips if number >= 0 else clips[: plan.in_flight]
            files = [salted(clip, subject.scratch / f"round-{number}", n) for n, clip in enumerate(some)]
            before = cpu_seconds(serve)
            last[OURS], seconds = through_service(client, files)
            spent[:] = [(cpu_seconds(serve) - before, seconds)]
            return {RATE: 60 * len(files) / seconds}

        def theirs(name: str, redis_url: str, jobs: int, number: int) -> Figures:
            some = clips[: jobs if number >= 0 else 1]
            last[name], seconds = through_rq(redis_url, some)
            return {RATE: 60 * len(some) / seconds}

        arms = {
            FORKED: lambda number: theirs(FORKED, forking, plan.forked_jobs, number),
            WARM_FORKED: lambda number: theirs(WARM_FORKED, preloaded, plan.forked_jobs, number),
            SIMPLE: lambda number: theirs(SIMPLE, simple, plan.simple_jobs, number),
            OURS: ours,
        }
        samples = take_turns(arms, rounds=plan.queue_rounds)
    names = [f"{n:02d}-{clip.path.name}" for n, clip in enumerate(clips)]
    pairs = [(last[OURS][name], last[SIMPLE].get(name[3:])) for name in names]
    compared = [pair for pair in pairs if pair[1] is not None]
    same = sum(ours == theirs for ours, theirs in compared)
    return Comparison(
        key="queued",
        title="A queue of videos",
        how=f"{len(clips)} videos of the demo world for named domains, answered to their ends. Ours: posted to `visum "
        "serve` (settings as shipped, one worker), from the first byte to the last `finished_at`; no two files are the "
        "same. RQ: videos enqueued at once for a worker that waits; the job is `load_video` with pyav at the same "
        "frames, the processor, the domain's adapter as a plain PEFT LoRA without gates, and `generate`. SimpleWorker "
        "loaded model and adapters before. One job after another costs the same however many wait: SimpleWorker did "
        f"{plan.simple_jobs} a round, the forking workers {plan.forked_jobs}.",
        rows=(
            samples.row(OURS, SIMPLE, RATE, goal=QUEUE),
            samples.row(OURS, FORKED, RATE, goal=QUEUE_FORKED),
            samples.row(OURS, WARM_FORKED, RATE),
        ),
        breakdowns=(
            cpu_breakdown(
                "a job of the last round, CPU time by process", spent[0][0], len(clips), spent[0][1]
            ),
        ),
        notes=(
            f"The RQ workers were given {threads} of torch's threads, the faster of one and torch's own number.",
            "With every gate at 1/K, plain PEFT gave the service's answer to "
            f"{same} of the {len(compared)} videos that both saw.",
        ),
    )


def faster_threads(subject: Subject, clips: Sequence[ClipFile]) -> int:
    """One thread of torch's or as many as it takes by itself: whichever the plain job is faster with.

    A small model's products are over before a second thread has begun, above all where the cores have other work.
    """
    import torch

    seconds: dict[int, float] = {}
    for threads in {1, torch.get_num_threads()}:
        with plain(subject, STAYING, threads) as redis_url:
            through_rq(redis_url, clips[:1])
            seconds[threads] = through_rq(redis_url, clips)[1]
    return min(seconds, key=seconds.__getitem__)


def salted(clip: ClipFile, folder: Path, number: int) -> ClipFile:
    """The same video in a file that differs by an empty box at its end: nothing may be remembered of it."""
    folder.mkdir(exist_ok=True)
    salt = f"{folder.name}-{number}".encode().ljust(24)
    path = folder / f"{number:02d}-{clip.path.name}"
    path.write_bytes(clip.path.read_bytes() + (8 + len(salt)).to_bytes(4, "big") + b"free" + salt)
    return ClipFile(clip.domain, path)


def through_service(client: Client, clips: Sequence[ClipFile]) -> tuple[Summaries, float]:
    """Summaries by file name, and the seconds from the first upload's begin to the last job's end."""
    began = time.time()
    with ThreadPoolExecutor(8) as uploads:
        ids = list(
            uploads.map(lambda clip: client.submit(clip.path, Options(domain=clip.domain))["id"], clips)
        )
    records = [finish(client, summary_id) for summary_id in reversed(ids)][::-1]
    seconds = max(finished_at(record) for record in records) - began
    names = [clip.path.name for clip in clips]
    return {name: record["result"]["summary"] for name, record in zip(names, records, strict=True)}, seconds


def through_rq(redis_url: str, clips: Sequence[ClipFile]) -> tuple[Summaries, float]:
    """The same through whichever plain worker listens there.

    Raises:
        JobFailed: a job failed, or all of them took too long.
    """
    with Redis.from_url(redis_url) as redis:
        queue = open_queue(redis)
        began = time.time()
        jobs = [queue.enqueue(SUMMARIZE, str(clip.path), clip.domain) for clip in clips]
        for job in jobs:
            while (status := job.get_status()) not in (JobStatus.FINISHED, JobStatus.FAILED):
                if time.time() - began > PATIENCE_S:
                    raise JobFailed(f"{job.id} is {status} after {PATIENCE_S:.0f} s")
                time.sleep(0.02)
            if status is JobStatus.FAILED:
                raise JobFailed(f"{job.id}: {job.latest_result().exc_string}")
        for job in jobs:
            job.refresh()
        seconds = max(job.ended_at.timestamp() for job in jobs) - began
        return {clip.path.name: job.return_value() for clip, job in zip(clips, jobs, strict=True)}, seconds


@contextmanager
def plain(subject: Subject, kind: str, threads: int) -> Iterator[str]:
    """A plain worker of this kind on a Valkey of its own, whose address is yielded; ready when it takes a job."""
    told = {entry.domain: str(entry.path) for entry in subject.entries}
    model = json.dumps({"backbone": str(subject.backbone), "adapters": told})
    with valkey() as redis_url, (subject.scratch / f"{kind}.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.plain_worker", kind, redis_url],
            env={**environment(), MODEL: model, "OMP_NUM_THREADS": str(threads)},
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            yield redis_url
        finally:
            end(process)
