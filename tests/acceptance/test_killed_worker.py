"""A worker that dies half way through an answer, under the settings that are shipped."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

from contract.queue import open_queue
from tests.acceptance.clips import Video
from tests.acceptance.system import System, wait_until

MOST_S = 120.0


def test_a_job_whose_worker_is_killed_mid_answer_is_finished_once_by_another_within_two_minutes(
    system: System, alone: dict[Video, dict[str, Any]]
) -> None:
    video = next(iter(alone))
    wait_until(lambda: len(system.workers()) == 2, "both workers are there")
    succeeded = _succeeded(system)
    with system.frozen_mid_answer(video.path, domain=video.domain, adapter_version=1) as running:
        before = system.store.get(running.summary_id)
        assert 0 < before.progress.done < before.progress.total
        os.kill(running.pid, signal.SIGKILL)
        killed = time.monotonic()
    record = system.ended(running.summary_id, timeout_s=MOST_S)
    assert time.monotonic() - killed < MOST_S
    assert record["status"] == "succeeded"
    assert record["attempts"] == 2
    assert record["result"]["summary"] == alone[video]["summary"]
    assert system.worker_of(running.summary_id) != running.pid
    assert system.store.get(running.summary_id).generation == before.generation + 1
    _is_over(system, running.summary_id)
    assert _succeeded(system) - succeeded == 1 + len(running.quicker)
    assert system.record(running.summary_id) == record


def _succeeded(system: System) -> float:
    """How many runs of jobs ended with a summary, over all workers that there ever were."""
    return system.metric("visum_worker_jobs_total", outcome="succeeded")


def _is_over(system: System, summary_id: str) -> None:
    """Nothing of the job is left that anybody could run again."""
    queue = open_queue(system.redis)
    wait_until(lambda: not system.redis.zcard(queue.started_job_registry.key), "no lease is left", 20)
    assert queue.job_ids == []
    assert system.redis.llen(queue.intermediate_queue_key) == 0
    wait_until(lambda: queue.fetch_job(summary_id) is None, "the job is gone", 20)
