"""A queue of videos through the service, and through the RQ workers that a plain team would write."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import cycle, islice
from pathlib import Path

from redis import Redis
from rq.job import JobStatus

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

Summaries = dict[Path, str]


def queued(subject: Subject, plan: Plan) -> Comparison:
    """The same videos for named domains, queued at once; every way has a queue and one worker on this machine."""
    last: dict[str, Summaries] = {}
    clips = list(islice(cycle(subject.clips), plan.queue_jobs))

    with (
        serving(subject, subject.scratch / "queued") as url,
        Client(url) as client,
        plain(subject, STAYING) as simple,
        plain(subject, FORKING) as forking,
        plain(subject, PRELOADED) as preloaded,
    ):

        def ours(number: int) -> Figures:
            files = [salted(clip, subject.scratch / f"round-{number}", n) for n, clip in enumerate(clips)]
            last[OURS], seconds = through_service(client, files)
            return {RATE: 60 * len(files) / seconds}

        def theirs(name: str, redis_url: str, jobs: int) -> Figures:
            last[name], seconds = through_rq(redis_url, clips[:jobs])
            return {RATE: 60 * jobs / seconds}

        arms = {
            FORKED: lambda _: theirs(FORKED, forking, plan.forked_jobs),
            WARM_FORKED: lambda _: theirs(WARM_FORKED, preloaded, plan.forked_jobs),
            SIMPLE: lambda _: theirs(SIMPLE, simple, len(clips)),
            OURS: ours,
        }
        samples = take_turns(arms, rounds=plan.queue_rounds)
    names = [clip.path.name for clip in clips]
    same = sum(last[OURS][f"{n:02d}-{name}"] == last[SIMPLE][name] for n, name in enumerate(names))
    return Comparison(
        key="queued",
        title="A queue of videos",
        how=f"{len(clips)} videos of the demo world for named domains, answered to their ends. Ours: posted to `visum "
        "serve` (settings as shipped, one worker), from the first byte to the last `finished_at`; no two files are the "
        "same. RQ: the same videos enqueued at once for a worker that waits; the job is `load_video` with pyav at the "
        "same frames, the processor, the domain's adapter as a plain PEFT LoRA without gates, and `generate`. "
        f"SimpleWorker loaded model and adapters before. The forking workers did {plan.forked_jobs} jobs a round: one "
        "job costs them the same however many wait.",
        rows=(
            samples.row(OURS, SIMPLE, RATE, goal=QUEUE),
            samples.row(OURS, FORKED, RATE, goal=QUEUE_FORKED),
            samples.row(OURS, WARM_FORKED, RATE),
        ),
        notes=(
            f"With every gate at 1/K, plain PEFT gave the service's answer to {same} of the {len(clips)} videos.",
        ),
    )


def salted(clip: ClipFile, folder: Path, number: int) -> ClipFile:
    """The same video in a file that differs by an empty box at its end: nothing may be remembered of it."""
    folder.mkdir(exist_ok=True)
    salt = f"{folder.name}-{number}".encode().ljust(24)
    path = folder / f"{number:02d}-{clip.path.name}"
    path.write_bytes(clip.path.read_bytes() + (8 + len(salt)).to_bytes(4, "big") + b"free" + salt)
    return ClipFile(clip.domain, path)


def through_service(client: Client, clips: Sequence[ClipFile]) -> tuple[dict[str, str], float]:
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


def through_rq(redis_url: str, clips: Sequence[ClipFile]) -> tuple[dict[str, str], float]:
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
def plain(subject: Subject, kind: str) -> Iterator[str]:
    """A plain worker of this kind on a Valkey of its own, whose address is yielded; ready when it takes a job."""
    told = {entry.domain: str(entry.path) for entry in subject.entries}
    model = json.dumps({"backbone": str(subject.backbone), "adapters": told})
    with valkey() as redis_url, (subject.scratch / f"{kind}.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.plain_worker", kind, redis_url],
            env={**environment(), MODEL: model, "PYTHONPATH": os.pathsep.join([str(ROOT)])},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            yield redis_url
        finally:
            end(process)
