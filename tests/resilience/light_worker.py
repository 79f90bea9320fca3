"""A worker without a model: the real consumer, store and queue, around work that only takes time.

    python -m tests.resilience.light_worker [--seconds S] [--die before|after MODULE:CLASS.METHOD] [--poison NAME]

`--die` ends the process, as a power cut would, before or after the first call of one method. A job whose file is
called like `--poison` kills the process whenever it runs; one that is called hang.mp4 hangs the first time.
"""

from __future__ import annotations

import argparse
import importlib
import os
import signal
import threading
from functools import wraps

from rq.job import Retry

from contract.errors import Code
from contract.records import JobError, Stage
from contract.result import SummaryResult
from contract.store import SummaryStore
from service.examples import RESULT
from workers import job
from workers.connection import connect
from workers.consumer import Consumer, Pace
from workers.control import JobControl, StopReason
from workers.metrics import WorkerMetrics
from workers.retries import HAND_BACK, try_later
from workers.settings import WorkerSettings


def die_at(moment: str, place: str) -> None:
    """Have this process end at one method: a crash between two effects."""
    module_name, _, path = place.partition(":")
    class_name, _, method_name = path.partition(".")
    owner = getattr(importlib.import_module(module_name), class_name)
    method = getattr(owner, method_name)

    @wraps(method)
    def dying(*arguments: object, **named: object) -> object:
        if moment == "after":
            method(*arguments, **named)
        os._exit(1)

    setattr(owner, method_name, dying)


class LightWork:
    """Begins a job, takes its time, writes a result."""

    def __init__(self, store: SummaryStore, name: str, seconds: float, poison: str) -> None:
        self._store, self._name, self._seconds, self._poison = store, name, seconds, poison

    def run(self, summary_id: str, control: JobControl) -> Retry | None:
        record = self._store.start(summary_id, self._name)
        if record is None:
            return None
        control.generation = record.generation
        control.report(Stage.DECODE)
        self._store.progress(record.id, record.generation, control.progress)
        if record.request.filename == self._poison:
            os.kill(os.getpid(), signal.SIGKILL)
        if record.request.filename == "busy.mp4" and record.attempts == 1:
            busy = JobError(code=Code.INTERNAL_ERROR, message="Busy, this once.")
            self._store.requeue(record.id, record.generation, setback=busy)
            return try_later(record.attempts)
        if record.request.filename == "hang.mp4" and record.attempts == 1:
            control.report(Stage.GENERATE)
            threading.Event().wait()
        if control.stop.wait(self._seconds):
            if control.reason is StopReason.DRAINING:
                self._store.requeue(record.id, record.generation, refund_attempt=True)
                return HAND_BACK
            return None
        result = SummaryResult.model_validate({**RESULT, "id": record.id, "summary": self._name})
        self._store.succeed(record.id, record.generation, result)
        return None


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=0.0)
    parser.add_argument("--slots", type=int, default=4)
    parser.add_argument("--die", nargs=2, default=None)
    parser.add_argument("--poison", default="")
    options = parser.parse_args()
    if options.die is not None:
        die_at(*options.die)
    settings = WorkerSettings()
    redis = connect(settings.redis_url)
    store = SummaryStore(redis, settings.retention)
    name = f"light-{os.getpid()}-"
    pace = Pace(
        lease_s=settings.lease_seconds,
        heartbeat_s=settings.heartbeat_seconds,
        recovery_s=settings.recovery_seconds,
        stranded_s=settings.stranded_seconds,
        watch_s=settings.watch_seconds,
        drain_s=settings.drain_seconds,
        hang_s=settings.hang_seconds,
    )
    work = LightWork(store, name, options.seconds, options.poison)
    consumer = Consumer(
        redis, store, work.run, WorkerMetrics(), name=name, capacity=lambda: options.slots, pace=pace
    )
    job.bind(consumer.run)
    signal.signal(signal.SIGTERM, lambda *_: consumer.stop())
    consumer.consume()


if __name__ == "__main__":
    main()
