"""What becomes of the jobs of a worker that ends, in order or not."""

from __future__ import annotations

import signal
import time
from pathlib import Path

from contract.errors import Code
from contract.queue import MAX_ATTEMPTS
from contract.records import Status
from tests.workers.service import Service, wait_until
from workers.consumer import EXIT_HUNG

QUICK = {
    "lease_seconds": 3,
    "heartbeat_seconds": 0.5,
    "recovery_seconds": 0.5,
    "stranded_seconds": 1,
    "watch_seconds": 0.1,
}


def test_a_killed_workers_job_is_finished_once_by_another(service: Service, video: Path) -> None:
    victim = service.start_worker(step_s=0.1, **QUICK)
    summary_id = service.submit(video, max_new_tokens=120)
    wait_until(lambda: service.generating(summary_id), "the victim generates")
    first = service.store.get(summary_id)
    victim.send_signal(signal.SIGKILL)
    service.start_worker(**QUICK)
    record = service.ended(summary_id, timeout_s=90)
    assert record.status is Status.SUCCEEDED, service.logs()
    assert record.attempts == 2
    assert record.generation == first.generation + 1
    assert record.worker != first.worker
    assert service.queue.count == 0
    wait_until(lambda: service.redis.zcard(service.queue.started_job_registry.key) == 0, "no lease is left")
    assert service.redis.llen(service.queue.intermediate_queue_key) == 0
    assert not service.redis.exists(f"rq:job:{summary_id}", f"rq:executions:{summary_id}")
    assert "could not be ended" not in service.logs()


def test_a_job_that_takes_its_worker_down_each_time_is_given_up(service: Service, video: Path) -> None:
    summary_id = service.submit(video, max_new_tokens=120)
    for attempt in range(1, MAX_ATTEMPTS + 1):
        victim = service.start_worker(step_s=0.1, **QUICK)
        wait_until(
            lambda attempt=attempt: (
                service.store.get(summary_id).attempts == attempt and service.generating(summary_id)
            ),
            f"attempt {attempt} generates",
        )
        victim.send_signal(signal.SIGKILL)
        victim.wait()
    service.start_worker(**QUICK)
    record = service.ended(summary_id, timeout_s=90)
    assert record.error is not None
    assert record.error.code is Code.JOB_LOST
    assert "5 times, the last one while writing its summary" in record.error.message


def test_a_job_stranded_before_its_lease_goes_back_into_the_queue(service: Service, video: Path) -> None:
    summary_id = service.submit(video)
    service.redis.lmove(service.queue.key, service.queue.intermediate_queue_key)
    service.start_worker(**QUICK)
    assert service.ended(summary_id, timeout_s=90).status is Status.SUCCEEDED
    assert service.redis.llen(service.queue.intermediate_queue_key) == 0


def test_a_stopped_worker_finishes_what_it_began(service: Service, video: Path) -> None:
    worker = service.start_worker(step_s=0.05, slots=1, decode_processes=1, **QUICK)
    running = service.submit(video, max_new_tokens=40)
    wait_until(lambda: service.generating(running), "the first one generates")
    decoded_ahead, waiting = service.submit(video), service.submit(video)
    wait_until(lambda: service.store.get(decoded_ahead).status is Status.RUNNING, "the second one is begun")
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(timeout=90) == 0, service.logs()
    assert service.store.get(running).status is Status.SUCCEEDED
    assert service.store.get(decoded_ahead).status is Status.SUCCEEDED
    assert service.store.get(waiting).status is Status.QUEUED


def test_what_a_stopped_worker_cannot_finish_is_handed_back_at_once(service: Service, video: Path) -> None:
    worker = service.start_worker(step_s=0.1, drain_seconds=0.5, **QUICK)
    summary_id = service.submit(video, max_new_tokens=120)
    wait_until(lambda: service.generating(summary_id), "it generates")
    began = time.monotonic()
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(timeout=90) == 0, service.logs()
    assert time.monotonic() - began < 20
    record = service.store.get(summary_id)
    assert record.status is Status.QUEUED
    assert record.attempts == 0
    assert service.queue.job_ids == [summary_id]
    service.start_worker(**QUICK)
    assert service.ended(summary_id).status is Status.SUCCEEDED


def test_a_job_whose_model_hangs_can_be_canceled_and_costs_its_worker(service: Service, video: Path) -> None:
    worker = service.start_worker(step_s=10_000, hang_seconds=1, **QUICK)
    summary_id = service.submit(video)
    wait_until(lambda: service.store.get(summary_id).progress.stage == "generate", "its first token is there")
    service.store.request_cancel(summary_id)
    assert worker.wait(timeout=60) == EXIT_HUNG, service.logs()
    assert service.store.get(summary_id).status is Status.CANCELED
    assert service.redis.zcard(service.queue.started_job_registry.key) == 0


def test_a_worker_whose_device_failed_ends_and_no_job_ends_with_it(service: Service, video: Path) -> None:
    words = "CUDA error: device-side assert triggered"
    worker = service.start_worker(test_step_fails=words, slots=1, decode_processes=1, **QUICK)
    jobs = [service.submit(video) for _ in range(4)]
    assert worker.wait(timeout=90) == 1, service.logs()
    records = [service.store.get(job) for job in jobs]
    assert {record.status for record in records} == {Status.QUEUED}, service.logs()
    assert sum(record.attempts for record in records) == 1  # of the one in the pass that failed
    assert service.queue.started_job_registry.count == 0
    service.start_worker(**QUICK)
    assert {service.ended(job).status for job in jobs} == {Status.SUCCEEDED}


def test_a_worker_outlives_a_restart_of_redis(service: Service, video: Path) -> None:
    service.start_worker(**QUICK)
    service.redis.client_kill_filter(_type="normal")
    assert service.ended(service.submit(video)).status is Status.SUCCEEDED


def test_a_paused_worker_does_not_overwrite_its_successors_answer(service: Service, video: Path) -> None:
    paused = service.start_worker(step_s=0.1, **QUICK)
    summary_id = service.submit(video, max_new_tokens=30)
    wait_until(lambda: service.generating(summary_id), "it generates")
    paused.send_signal(signal.SIGSTOP)
    service.start_worker(**QUICK)
    record = service.ended(summary_id, timeout_s=90)
    paused.send_signal(signal.SIGCONT)
    wait_until(lambda: "lost its lease" in service.logs(), "the paused one notices")
    assert service.store.get(summary_id) == record
    another = service.submit(video)
    assert service.ended(another).status is Status.SUCCEEDED


def test_a_redis_that_is_full_for_longer_than_a_lease_takes_nobodys_job(
    service: Service, video: Path
) -> None:
    service.start_worker(step_s=0.1, **QUICK)
    summary_id = service.submit(video, max_new_tokens=60)
    wait_until(lambda: service.generating(summary_id), "it generates")
    (lease,) = service.redis.keys("rq:execution:*")
    service.redis.config_set("maxmemory", "1mb")
    try:
        refused = service.redis.time()[0]
        for _ in range(2 * QUICK["lease_seconds"]):  # it is moved on, second by second
            ends_at = service.redis.expiretime(lease)
            assert ends_at > 0
            wait_until(
                lambda ends_at=ends_at: service.redis.expiretime(lease) > ends_at, "the lease is renewed", 10
            )
        assert service.redis.time()[0] - refused > QUICK["lease_seconds"]
    finally:
        service.redis.config_set("maxmemory", "0")
    record = service.ended(summary_id, timeout_s=90)
    assert (record.status, record.attempts) == (Status.SUCCEEDED, 1), service.logs()


def test_a_worker_that_was_paused_past_its_lease_with_nobody_to_take_over_does_its_jobs_again_and_no_more(
    service: Service, video: Path
) -> None:
    worker = service.start_worker(step_s=0.1, **QUICK)
    ids = [service.submit(video, max_new_tokens=60) for _ in range(2)]
    wait_until(lambda: all(service.generating(one) for one in ids), "both generate")
    worker.send_signal(signal.SIGSTOP)
    wait_until(lambda: not service.redis.keys("rq:execution:*"), "their leases are over")
    worker.send_signal(signal.SIGCONT)
    records = [service.ended(one, timeout_s=90) for one in ids]
    assert [(record.status, record.attempts) for record in records] == [(Status.SUCCEEDED, 2)] * 2
    wait_until(lambda: service.redis.zcard(service.queue.started_job_registry.key) == 0, "no lease is left")
    assert "Traceback" not in service.logs()
