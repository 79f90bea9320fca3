"""The whole service as it runs among others: keys, Redis behind TLS and a password, logs as JSON, traces."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.visum.collector import Collector, collecting
from tests.visum.running import Service, free_port, run_visum, serving, wait_for
from tests.visum.secured_redis import PASSWORD, SecuredRedis, secured_redis

METRICS_PORT = free_port()


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with collecting() as running:
        yield running


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecuredRedis]:
    with secured_redis(tmp_path_factory.mktemp("redis")) as running:
        yield running


@pytest.fixture(scope="module")
def service(
    redis: SecuredRedis, collector: Collector, tiny_backbone: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Service]:
    with serving(
        tmp_path_factory.mktemp("secured"),
        tiny_backbone,
        VISUM_REDIS_URL=redis.url,
        VISUM_AUTH="required",
        VISUM_LOG_FORMAT="json",
        VISUM_METRICS_PORT=str(METRICS_PORT),
        OTEL_EXPORTER_OTLP_ENDPOINT=collector.url,
        OTEL_BSP_SCHEDULE_DELAY="100",
    ) as running:
        yield running


@pytest.fixture(scope="module")
def token(service: Service, redis: SecuredRedis) -> str:
    """Made as an operator makes it, while the service runs."""
    done = run_visum("keys", "create", "--tenant", "acme", VISUM_REDIS_URL=redis.url)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def events(service: Service) -> list[dict[str, Any]]:
    """The lines of gateway and worker; the supervisor's own are for people."""
    lines = service.log.read_text().splitlines()
    return [json.loads(line) for line in lines if line.startswith("{")]


def test_a_client_with_a_key_gets_its_summary(service: Service, token: str, clips: list[Path]) -> None:
    assert run_visum("summarize", clips[0], "--url", service.url).returncode == 1
    done = run_visum("summarize", clips[0], "--url", service.url, "--json", VISUM_API_KEY=token)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["status"] == "succeeded"


def test_one_request_is_followed_from_the_gateway_to_the_worker(
    service: Service, token: str, clips: list[Path]
) -> None:
    headers = {"Authorization": f"Bearer {token}", "X-Request-ID": "follow-me"}
    with clips[1].open("rb") as video:
        answer = httpx.post(f"{service.url}/summaries", files={"file": ("c.mp4", video)}, headers=headers)
    summary_id = answer.json()["id"]

    def told() -> list[tuple[str, str, str]]:
        return [
            (event["logger"], event["tenant"], event["summary_id"])
            for event in events(service)
            if event.get("request_id") == "follow-me"
        ]

    wait_for(lambda: len(told()) >= 2, "gateway and worker to tell", service.log)
    assert told() == [("service.routes.summaries", "acme", summary_id), ("visum.job", "acme", summary_id)]


def test_one_trace_leads_from_the_upload_through_the_queue_to_the_workers_stages(
    service: Service, collector: Collector, token: str, clips: list[Path]
) -> None:
    trace_id = "4bf92f3577b34da6a3ce929d0e0e4736"
    headers = {"Authorization": f"Bearer {token}", "traceparent": f"00-{trace_id}-00f067aa0ba902b7-01"}
    with clips[0].open("rb") as video:
        httpx.post(f"{service.url}/summaries", files={"file": ("c.mp4", video)}, headers=headers)
    worker = {"queued", "summarize", "decode", "route", "adapter", "prefill", "generate"}
    wait_for(lambda: worker <= collector.spans(trace_id).keys(), f"{worker} to arrive", service.log)
    spans = collector.spans(trace_id)
    assert spans["POST /summaries"].service == "visum-gateway"
    assert {spans[name].service for name in worker} == {"visum-worker"}
    assert spans["decode"].parent == spans["generate"].parent == spans["summarize"].id
    assert spans["queued"].parent == spans["summarize"].parent
    assert spans["summarize"].attributes["visum.tenant"] == "acme"
    assert token not in str(spans)


def test_metrics_are_on_their_own_port(service: Service) -> None:
    assert httpx.get(f"{service.url}/metrics").status_code == 404
    text = httpx.get(f"http://127.0.0.1:{METRICS_PORT}/metrics").text
    assert "visum_worker" in text or "visum_jobs_total" in text
    assert "visum_redis_up 1.0" in text


def test_the_operator_is_told_how_to_make_a_key(service: Service) -> None:
    assert "visum keys create --tenant NAME" in service.log.read_text()


@pytest.mark.parametrize("wrong", ["password", "authority"])
def test_who_can_not_get_in_is_told_so_without_the_password(redis: SecuredRedis, wrong: str) -> None:
    url = redis.address("hunter2hunter2") if wrong == "password" else redis.address(trusted=False)
    done = run_visum("keys", "list", VISUM_REDIS_URL=url)
    assert done.returncode == 1
    assert done.stderr.startswith("visum: Redis does not answer: ")
    assert done.stderr.count("\n") == 1
    for secret in ("hunter2", PASSWORD, "p%40ss"):
        assert secret not in done.stdout + done.stderr


def test_an_address_that_can_not_be_read_is_not_shown(tmp_path: Path) -> None:
    """An unescaped # in a password: urllib's own complaint would quote what stands before it."""
    for command in (["keys", "list"], ["gateway"], ["worker"], ["serve", "--data-dir", str(tmp_path)]):
        done = run_visum(*command, VISUM_REDIS_URL="redis://visum:hunter2#3@127.0.0.1/0")
        assert done.returncode == 2
        assert done.stderr.startswith("visum: VISUM_REDIS_URL cannot be read: ")
        assert "rediss://" in done.stderr
        assert "hunter2" not in done.stdout + done.stderr


def test_the_secrets_are_in_no_log(service: Service, token: str) -> None:
    text = service.log.read_text()
    assert len(events(service)) > 3
    for secret in (PASSWORD, "p%40ss", token.rsplit("_", 1)[1]):
        assert secret not in text
