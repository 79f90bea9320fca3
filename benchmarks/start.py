"""From the start of a worker process to its readiness, and to its first answer."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path

from benchmarks.goals import START
from benchmarks.plan import Plan
from benchmarks.processes import environment, model_settings, part, valkey, wait_until
from benchmarks.report import Breakdown, Comparison, Share
from benchmarks.spread import Spread
from benchmarks.start_probe import FIRST, IMPORTS, LATER
from benchmarks.subject import Subject

READY = "`visum worker`, from start to ready"
BEGAN, LOADED, WIRED = (
    "interpreter, command line, imports",
    "load and check the backbone",
    "inject the experts, read the manifests, wire, register in the queue",
)
PHASES = (BEGAN, LOADED, WIRED)
MARKS = (
    ("loading backbone ", BEGAN),
    ("backbone ", LOADED),
    ("worker ", WIRED),
)
"""How the line begins that a worker logs at each phase's end."""
ROOT = Path(__file__).parents[1]


def start(subject: Subject, plan: Plan) -> Comparison:
    """A worker's start, whole and in its parts; the first start fills the disk's cache and is not counted."""
    names = (*PHASES, READY, *IMPORTS, FIRST, LATER)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    with valkey() as redis_url:
        for number in range(-1, plan.start_rounds):
            found = probe(subject, redis_url) | start_worker(subject, redis_url)
            if number >= 0:
                for name in names:
                    seconds[name].append(found[name])
    goals = {READY: START}
    parts = {
        "start to ready": (*PHASES, READY),
        f"{BEGAN}: of which": IMPORTS,
        "then": (FIRST, LATER),
    }
    return Comparison(
        key="start",
        title="Worker start",
        how="A worker process from its start until it is registered in the queue, with a warm disk, by the times of "
        "its own log lines. Beside it, in turns, another process stops the time at every import, then answers one "
        f"clip three times, alone and without experts. {plan.start_rounds} rounds.",
        breakdowns=tuple(
            Breakdown(
                title=title,
                shares=tuple(
                    Share(name=name, unit="s", value=Spread.of(seconds[name]), goal=goals.get(name))
                    for name in of
                ),
            )
            for title, of in parts.items()
        ),
    )


def probe(subject: Subject, redis_url: str) -> dict[str, float]:
    """Seconds of each import and of answers, told by a process that goes through them.

    Raises:
        subprocess.CalledProcessError: it ended with an error.
    """
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.start_probe", str(time.time()), str(subject.clips[0].path)],
        env=environment(**_settings(subject, redis_url)),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        check=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


def start_worker(subject: Subject, redis_url: str) -> dict[str, float]:
    """Seconds of each phase until a worker is registered in the queue, and of them all."""
    folder = Path(tempfile.mkdtemp(prefix="start-", dir=subject.scratch))
    settings = {**_settings(subject, redis_url), "VISUM_LOG_FORMAT": "json", "VISUM_LOG_LEVEL": "INFO"}
    began = time.time()
    with part("worker", folder, **settings) as process:
        log = folder / "worker.log"
        wait_until(lambda: len(_marks(log)) == len(MARKS), process, log)
    marks = _marks(log)
    moments = [began, *(marks[name] for name in PHASES)]
    seconds = {name: moments[n + 1] - moments[n] for n, name in enumerate(PHASES)}
    return seconds | {READY: moments[-1] - began}


def _marks(log: Path) -> dict[str, float]:
    """When each phase ended that has ended, in seconds since the epoch."""
    ended: dict[str, float] = {}
    for line in log.read_text().splitlines():
        if not line.startswith("{"):
            continue  # a library's word on stderr
        event = json.loads(line)
        for beginning, phase in MARKS:
            if event["event"].startswith(beginning):
                ended.setdefault(phase, datetime.fromisoformat(event["timestamp"]).timestamp())
                break
    return ended


def _settings(subject: Subject, redis_url: str) -> dict[str, str]:
    return {
        **model_settings(subject),
        "VISUM_REDIS_URL": redis_url,
        "VISUM_DATA_DIR": str(subject.scratch / "start"),
    }
