"""Whether gateway and worker stay as large as they are while they work."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path

import httpx

from benchmarks.processes import answers, free_port, part, valkey, wait_until
from benchmarks.soak_probe import usage_of
from benchmarks.soak_verdict import MEMORY_BYTES, MEMORY_SHARE, trend
from resilience.load_client import drive, get
from resilience.load_plan import Plan
from resilience.load_service import form_of, submit
from resilience.load_verdict import Verdict

MIB = 2**20
SAMPLES = ("cooking", "sports", "traffic", "wildlife")
AHEAD = 8  # summaries that wait at a time: the worker always has something to do


@dataclass(frozen=True)
class Pids:
    gateway: int
    worker: int


def memory(scratch: Path, plan: Plan, verdict: Verdict) -> None:
    """Submit the sample clips and poll for `memory_s` seconds; compare early memory with late."""
    if not plan.memory_s:
        return
    seen: dict[str, list[tuple[float, float]]] = {"gateway": [], "worker": []}
    with _serving(scratch) as (url, pids):
        done = _load(url, pids, plan.memory_s, seen)
    verdict.tell("summaries made meanwhile", str(done), done)
    for name, points in seen.items():
        found = trend(points, share=MEMORY_SHARE, least=MEMORY_BYTES)
        if found is None:
            raise RuntimeError(f"too few looks at the {name}'s memory to tell")
        growth = found.growth / MIB
        figure = f"{found.early / MIB:.1f} MiB early, {found.late / MIB:.1f} late, {growth:+.1f}"
        verdict.hold(f"memory of the {name}", figure, f"≤ +{found.slack / MIB:.0f} MiB", found.flat, growth)


def _load(url: str, pids: Pids, seconds: float, seen: dict[str, list[tuple[float, float]]]) -> int:
    clips = cycle(submit(form_of((Path("visum/samples") / f"{name}.mp4").read_bytes())) for name in SAMPLES)
    began, places = time.monotonic(), []
    while (now := time.monotonic() - began) < seconds:
        status = httpx.get(f"{url}/summaries?limit=200", trust_env=False, timeout=60).json()["summaries"]
        waiting = sum(one["status"] in ("queued", "running") for one in status)
        for _ in range(AHEAD - waiting):
            request = next(clips)
            places += drive(url, lambda _, request=request: request, requests=2, connections=1).locations
        for place in places[-AHEAD:]:
            drive(url, lambda _, place=place: get(place), requests=20, connections=2)
        for name, pid in (("gateway", pids.gateway), ("worker", pids.worker)):
            seen[name].append((now, usage_of(pid).anonymous))
    listed = httpx.get(f"{url}/metrics", trust_env=False, timeout=60).text
    return sum(
        int(float(line.rsplit(" ", 1)[1]))
        for line in listed.splitlines()
        if line.startswith('visum_jobs{status="succeeded"}')
    )


@contextmanager
def _serving(scratch: Path) -> Iterator[tuple[str, Pids]]:
    scratch.mkdir(parents=True, exist_ok=True)
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    with valkey() as redis_url:
        settings = {"VISUM_REDIS_URL": redis_url, "VISUM_DATA_DIR": str(scratch / "data")}
        settings |= {"VISUM_PORT": str(port), "VISUM_WORKER_METRICS_PORT": "0", "VISUM_DEVICE": "cpu"}
        with part("gateway", scratch, **settings) as gateway, part("worker", scratch, **settings) as worker:
            wait_until(lambda: answers(f"{url}/readyz"), worker, scratch / "worker.log")
            yield url, Pids(gateway.pid, worker.pid)
