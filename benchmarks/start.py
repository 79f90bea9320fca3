"""From the start of a worker process to its readiness, and to its first answer."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

from redis import Redis
from rq.worker_registration import get_keys

from benchmarks.goals import START
from benchmarks.plan import Plan
from benchmarks.processes import environment, model_settings, part, valkey, wait_until
from benchmarks.report import Breakdown, Comparison, Share
from benchmarks.spread import Spread
from benchmarks.start_probe import FIRST, LATER, PHASES
from benchmarks.subject import Subject
from contract.queue import open_queue

READY = "`visum worker`, from start to ready"
REST = "the rest: the command line, threads, registering in the queue"
ROOT = Path(__file__).parents[1]


def start(subject: Subject, plan: Plan) -> Comparison:
    """A worker's start, whole and in its parts; the first start fills the disk's cache and is not counted."""
    phases: dict[str, list[float]] = {name: [] for name in (*PHASES, REST, READY, FIRST, LATER)}
    with valkey() as redis_url:
        for number in range(-1, plan.start_rounds):
            probed = probe(subject, redis_url)
            ready = whole(subject, redis_url)
            if number >= 0:
                for name, value in probed.items():
                    phases[name].append(value)
                phases[READY].append(ready)
                phases[REST].append(ready - sum(probed[name] for name in PHASES))
    parts = [
        Breakdown(title="start to ready", shares=_shares(phases, (*PHASES, REST, READY))),
        Breakdown(title="then", shares=_shares(phases, (FIRST, LATER))),
    ]
    return Comparison(
        key="start",
        title="Worker start",
        how="A worker process from its start until it is registered in the queue, with a warm disk; beside it, in "
        "turns, a process that goes the same way and stops the time at every step. Then it answers one clip three "
        f"times, alone and without experts. {plan.start_rounds} rounds.",
        breakdowns=tuple(parts),
    )


def probe(subject: Subject, redis_url: str) -> dict[str, float]:
    """Seconds of each phase, told by a process that goes through them.

    Raises:
        subprocess.CalledProcessError: it ended with an error.
    """
    settings = {**model_settings(subject), "VISUM_REDIS_URL": redis_url}
    settings["VISUM_DATA_DIR"] = str(subject.scratch / "start")
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.start_probe", str(time.time()), str(subject.clips[0].path)],
        env=environment(**settings),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        check=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


def whole(subject: Subject, redis_url: str) -> float:
    """Seconds until a worker is registered in the queue."""
    settings = {**model_settings(subject), "VISUM_REDIS_URL": redis_url}
    settings["VISUM_DATA_DIR"] = str(subject.scratch / "start")
    with Redis.from_url(redis_url) as redis:
        redis.flushall()
        queue = open_queue(redis)
        began = time.perf_counter()
        with part("worker", subject.scratch, **settings) as process:
            wait_until(lambda: bool(get_keys(queue)), process, subject.scratch / "worker.log", poll_s=0.005)
            return time.perf_counter() - began


def _shares(phases: dict[str, list[float]], names: tuple[str, ...]) -> tuple[Share, ...]:
    goals = {READY: START}
    return tuple(
        Share(name=name, unit="s", value=Spread.of(phases[name]), goal=goals.get(name)) for name in names
    )
