"""The service under test: a real gateway that asks for keys, a real worker, a real Valkey."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from redis import Redis

from benchmarks.processes import answers, free_port, part, valkey, wait_until
from contract.api_keys import ApiKeys, Scope


@dataclass(frozen=True)
class Running:
    """A gateway's address, its Redis, and the token of a tenant that may do everything."""

    url: str
    redis_url: str
    token: str


@contextmanager
def running(scratch: Path, *, worker: bool = True, **settings: str) -> Iterator[Running]:
    """Start all and wait until it answers. Quotas are out of the way: their own tests hold them."""
    scratch.mkdir(parents=True, exist_ok=True)
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    with ExitStack() as stack:
        redis_url = stack.enter_context(valkey())
        own = {
            "VISUM_REDIS_URL": redis_url,
            "VISUM_DATA_DIR": str(scratch / "data"),
            "VISUM_PORT": str(port),
            "VISUM_AUTH": "required",
            "VISUM_QUOTA_SUBMITS_PER_MINUTE": "0",
            "VISUM_QUOTA_UNFINISHED": "0",
            "VISUM_QUOTA_STORED_BYTES": "0",
            "VISUM_MAX_QUEUE": "1000000",
            "VISUM_DEVICE": "cpu",
            "VISUM_WORKER_METRICS_PORT": "0",
            **settings,
        }
        gateway = stack.enter_context(part("gateway", scratch, **own))
        wait_until(lambda: answers(f"{url}/healthz"), gateway, scratch / "gateway.log")
        if worker:
            process = stack.enter_context(part("worker", scratch, **own))
            wait_until(lambda: answers(f"{url}/readyz"), process, scratch / "worker.log")
        with Redis.from_url(redis_url) as redis:
            token = ApiKeys(redis).create("alice", scopes=list(Scope))[1]
        yield Running(url, redis_url, token)
