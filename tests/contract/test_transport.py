"""Queue and serving notes, over a real Valkey."""

from __future__ import annotations

import json
import subprocess
import sys
import zlib
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from redis import Redis
from rq import Queue, SimpleWorker
from rq.serializers import JSONSerializer
from rq.utils import utcformat

from contract.queue import JOB_FUNCTION, live_workers, withdraw
from contract.serving import BACKBONE_KEY, ServedBackbone, announce, served_backbone


def test_a_queued_job_is_json_and_names_its_function(
    queue: Queue, redis: Redis, create: Callable[..., str]
) -> None:
    summary_id = create()
    raw = redis.hget(f"rq:job:{summary_id}", "data")
    assert raw is not None
    assert json.loads(zlib.decompress(raw)) == [JOB_FUNCTION, None, [summary_id], {}]
    job = queue.fetch_job(summary_id)
    assert job is not None
    assert (job.func_name, job.args, job.result_ttl) == (JOB_FUNCTION, [summary_id], 0)


def test_a_withdrawn_job_leaves_nothing(queue: Queue, redis: Redis, create: Callable[..., str]) -> None:
    stays, goes = create(), create()
    withdraw(queue, goes)
    withdraw(queue, goes)
    assert queue.job_ids == [stays]
    assert redis.keys("rq:job:*") == [f"rq:job:{stays}".encode()]


def test_a_worker_counts_while_it_is_heard_of(queue: Queue, redis: Redis) -> None:
    worker = SimpleWorker([queue], connection=redis, serializer=JSONSerializer)
    assert live_workers(queue) == 0
    worker.register_birth()
    assert live_workers(queue) == 1
    redis.hset(worker.key, "last_heartbeat", utcformat(datetime.now(UTC) - timedelta(days=1)))
    assert live_workers(queue) == 1, "a clock that is wrong is no silence"
    redis.pexpire(worker.key, 0)
    assert live_workers(queue) == 0


def test_the_backbone_in_service_is_told(redis: Redis) -> None:
    assert served_backbone(redis) is None
    served = ServedBackbone(name="visum-demo", fingerprint="0" * 64, notice="a demo")
    announce(redis, served)
    assert served_backbone(redis) == served


def test_an_unreadable_note_is_no_backbone(redis: Redis) -> None:
    redis.set(BACKBONE_KEY, b"{")
    assert served_backbone(redis) is None


def test_the_contract_loads_neither_torch_nor_a_web_framework() -> None:
    code = (
        "import sys, contract.store, contract.blobs, contract.problem, contract.serving\n"
        "print([m for m in ('torch', 'transformers', 'fastapi', 'numpy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
