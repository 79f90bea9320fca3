"""A job that hangs ends all the same, and costs the others nothing."""

from __future__ import annotations

import signal

import httpx

from contract.errors import Code
from contract.records import Status
from tests.resilience.conftest import Parts, post, wait_until
from workers.consumer import EXIT_HUNG


def _submitted(url: str, name: str) -> str:
    return post(url, key=name, name=name).json()["id"]


def _running(parts: Parts, summary_id: str) -> None:
    wait_until(lambda: parts.store.get(summary_id).status is Status.RUNNING, f"{summary_id} runs")


def test_a_worker_whose_engine_moves_nothing_hands_its_jobs_back_and_ends(parts: Parts) -> None:
    _, url = parts.gateway()
    hung = parts.worker("--seconds", "60", hang_seconds=1)
    bystander, hanging = _submitted(url, "other.mp4"), _submitted(url, "hang.mp4")
    assert hung.wait(timeout=30) == EXIT_HUNG, parts.log.read_text()
    assert not parts.is_listed(hung)
    records = [parts.store.get(summary_id) for summary_id in (bystander, hanging)]
    assert [(record.status, record.attempts) for record in records] == [
        (Status.QUEUED, 0),
        (Status.QUEUED, 1),
    ]
    assert records[1].setback is not None
    assert records[1].setback.code is Code.JOB_LOST
    assert sorted(parts.queue.job_ids) == sorted([bystander, hanging])
    parts.worker()
    assert {parts.ended(summary_id).status for summary_id in (bystander, hanging)} == {Status.SUCCEEDED}
    wait_until(lambda: not any(parts.books().values()), "the books are closed")


def test_a_hung_job_whose_time_is_up_fails_for_good(parts: Parts) -> None:
    _, url = parts.gateway()
    summary_id = _submitted(url, "hang.mp4")
    parts.redis.hset(f"rq:job:{summary_id}", "timeout", 1)
    hung = parts.worker(hang_seconds=2)
    assert hung.wait(timeout=30) == EXIT_HUNG, parts.log.read_text()
    record = parts.store.get(summary_id)
    assert record.error is not None
    assert record.error.code is Code.JOB_TIMEOUT
    assert not any(parts.books().values())


def test_a_worker_that_is_told_to_end_leaves_a_hung_job_to_others(parts: Parts) -> None:
    _, url = parts.gateway()
    hung = parts.worker(drain_seconds=0)
    summary_id = _submitted(url, "hang.mp4")
    _running(parts, summary_id)
    hung.send_signal(signal.SIGTERM)
    assert hung.wait(timeout=30) == EXIT_HUNG, parts.log.read_text()
    record = parts.store.get(summary_id)
    assert (record.status, record.attempts) == (Status.QUEUED, 0)
    assert parts.queue.job_ids == [summary_id]


def test_readyz_does_not_count_on_a_worker_that_drains_or_is_suspended(parts: Parts) -> None:
    _, url = parts.gateway()
    worker = parts.worker("--seconds", "60", drain_seconds=60)

    def workers() -> dict[str, object]:
        return httpx.get(f"{url}/readyz", trust_env=False).json()["workers"]

    assert workers()["ok"]
    parts.redis.set("rq:suspended", 1)
    wait_until(lambda: workers()["detail"] == "0 take work", "a suspended queue is told")
    parts.redis.delete("rq:suspended")
    wait_until(lambda: workers()["ok"], "it goes on")
    _running(parts, _submitted(url, "a.mp4"))
    worker.send_signal(signal.SIGTERM)
    wait_until(lambda: not workers()["ok"], "the drain is told")
    assert worker.poll() is None
    assert parts.is_listed(worker)
    worker.kill()
