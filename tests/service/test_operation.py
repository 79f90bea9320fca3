"""/healthz, /readyz, /metrics, and errors nobody planned for."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from rq import SimpleWorker

from service.readiness import Readiness
from tests.service.conftest import RunningGateway, StartGateway
from tests.service.wire import MP4, eventually

NOWHERE = "unix:///nonexistent/valkey.sock"


def metrics(gateway: RunningGateway) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    text = gateway.http.get("/metrics").text
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(gateway: RunningGateway, name: str, **labels: str) -> float | None:
    return metrics(gateway).get((name, frozenset(labels.items())))


class TestHealth:
    def test_a_gateway_without_redis_is_alive_and_not_ready(self, start_gateway: StartGateway) -> None:
        gateway = start_gateway(redis_url=NOWHERE)
        assert gateway.http.get("/healthz").json() == {"status": "alive"}
        answer = gateway.http.get("/readyz")
        assert answer.status_code == 503
        assert not answer.json()["redis"]["ok"]

    def test_it_is_not_ready_without_a_worker(self, gateway: RunningGateway) -> None:
        answer = gateway.http.get("/readyz")
        found = Readiness.model_validate(answer.json())
        assert (answer.status_code, found.redis.ok, found.storage.ok, found.workers.ok) == (
            503,
            True,
            True,
            False,
        )

    def test_it_is_ready_with_everything_there(
        self, gateway: RunningGateway, live_worker: SimpleWorker
    ) -> None:
        answer = gateway.http.get("/readyz")
        assert (answer.status_code, answer.json()["ready"]) == (200, True)

    def test_it_is_not_ready_when_videos_can_not_be_stored(
        self, gateway: RunningGateway, live_worker: SimpleWorker
    ) -> None:
        shutil.rmtree(gateway.parts.settings.blobs)
        assert gateway.http.get("/readyz").json()["storage"]["detail"].startswith("can't be written")
        gateway.parts.settings.blobs.mkdir()

    def test_it_is_not_ready_under_the_floor_of_free_disk(
        self, start_gateway: StartGateway, live_worker: SimpleWorker
    ) -> None:
        gateway = start_gateway(min_free_bytes=2**62)
        assert "VISUM_MIN_FREE_BYTES" in gateway.http.get("/readyz").json()["storage"]["detail"]

    def test_strangers_do_not_make_it_write_more_than_once_a_second(self, gateway: RunningGateway) -> None:
        def writes() -> int:
            return gateway.parts.redis.info("commandstats").get("cmdstat_set", {}).get("calls", 0)

        before, began = writes(), time.monotonic()
        with ThreadPoolExecutor(10) as pool:
            answers = list(pool.map(lambda _: gateway.http.get("/readyz").json(), range(50)))
        assert all(answer == answers[0] for answer in answers)
        assert 1 <= writes() - before <= 2 + time.monotonic() - began

    def test_that_it_shuts_down_is_said_at_once(
        self, gateway: RunningGateway, live_worker: SimpleWorker
    ) -> None:
        assert gateway.http.get("/readyz").status_code == 200
        gateway.parts.draining.set()
        answer = gateway.http.get("/readyz")
        assert (answer.status_code, answer.json()["gateway"]["ok"]) == (503, False)


class TestMetrics:
    def test_requests_count_by_route_and_status(self, gateway: RunningGateway) -> None:
        path = gateway.post(MP4).headers["Location"]
        gateway.post(b"no video at all")
        for unknown in ("/summaries/nope", path, "/a", "/b"):
            gateway.http.get(unknown)
        counted = metrics(gateway)

        def requests(method: str, route: str, status: str) -> float | None:
            labels = {"method": method, "route": route, "status": status}
            return counted.get(("visum_http_requests_total", frozenset(labels.items())))

        assert requests("POST", "/summaries", "202") == 1
        assert requests("POST", "/summaries", "415") == 1
        assert requests("GET", "/summaries/{summary_id}", "200") == 1
        assert requests("GET", "/summaries/{summary_id}", "404") == 1
        assert requests("GET", "unmatched", "404") == 2
        assert value(gateway, "visum_uploads_refused_total", code="video.unsupported_container") == 1
        assert value(gateway, "visum_upload_bytes_total") == len(MP4) + len(b"no video at all")

    def test_the_queue_shows(self, gateway: RunningGateway, live_worker: SimpleWorker) -> None:
        first = gateway.post(MP4).json()["id"]
        gateway.post(MP4)
        gateway.store.start(first, "w")
        assert value(gateway, "visum_queue_depth") == 1
        assert value(gateway, "visum_jobs", status="running") == 1
        assert value(gateway, "visum_jobs", status="failed") == 0
        assert value(gateway, "visum_workers_alive") == 1
        assert value(gateway, "visum_redis_up") == 1
        age = value(gateway, "visum_queue_oldest_age_seconds")
        assert age is not None
        assert 0 < age < 60

    def test_a_scrape_without_redis_says_so(self, start_gateway: StartGateway) -> None:
        gateway = start_gateway(redis_url=NOWHERE)
        assert value(gateway, "visum_redis_up") == 0
        assert value(gateway, "visum_queue_depth") is None

    def test_promtool_has_no_complaint(self, gateway: RunningGateway, live_worker: SimpleWorker) -> None:
        if (promtool := shutil.which("promtool")) is None:
            pytest.skip("promtool (Debian package prometheus) is not installed")
        gateway.post(MP4)
        gateway.post(b"")
        text = gateway.http.get("/metrics").content
        done = subprocess.run([promtool, "check", "metrics"], input=text, capture_output=True, check=False)
        assert (done.returncode, done.stdout + done.stderr) == (0, b"")

    def test_openmetrics_is_spoken_too(self, gateway: RunningGateway) -> None:
        answer = gateway.http.get(
            "/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"}
        )
        assert answer.headers["Content-Type"].startswith("application/openmetrics-text")
        assert answer.text.endswith("# EOF\n")

    @pytest.mark.parametrize("version", ["abc", '"1.0.0"', "\xff"])
    def test_a_version_that_is_none_is_answered_in_the_usual_one(
        self, gateway: RunningGateway, version: str
    ) -> None:
        accept = f"application/openmetrics-text; version={version}".encode("latin-1")
        answer = gateway.http.get("/metrics", headers={"Accept": accept})
        assert answer.status_code == 200
        assert "visum_queue_depth" in answer.text

    def test_one_scrape_holds_what_every_process_of_the_machine_counted(
        self, redis_url: str, tmp_path: Path
    ) -> None:
        """A gateway of its own, since prometheus_client settles its mode when it is imported."""
        (tmp_path / "metrics").mkdir()
        environment = {
            **os.environ,
            "PROMETHEUS_MULTIPROC_DIR": str(tmp_path / "metrics"),
            "VISUM_DATA_DIR": str(tmp_path),
            "VISUM_REDIS_URL": redis_url,
            "VISUM_MIN_FREE_BYTES": "0",
        }
        worker = "from prometheus_client import Counter; Counter('visum_worker_tokens', 'Tokens.').inc(5)"
        subprocess.run([sys.executable, "-c", worker], env=environment, check=True)
        log = tmp_path / "gateway.log"
        with log.open("wb") as file:
            process = subprocess.Popen(
                [sys.executable, "-m", "uvicorn", "service.app:create_app", "--factory", "--port", "0"],
                env=environment,
                stdout=file,
                stderr=subprocess.STDOUT,
            )
        try:
            eventually(lambda: "Uvicorn running on" in log.read_text(), seconds=60)
            url = log.read_text().split("Uvicorn running on ")[1].split()[0]
            httpx.get(f"{url}/healthz", trust_env=False)
            text = httpx.get(f"{url}/metrics", trust_env=False).text
        finally:
            process.terminate()
            process.wait(timeout=20)
        assert "visum_worker_tokens_total 5.0" in text
        assert 'visum_http_requests_total{method="GET",route="/healthz",status="200"} 1.0' in text
        assert "visum_queue_depth 0.0" in text


class TestErrors:
    @pytest.mark.parametrize("fault", [RuntimeError, OSError])
    def test_a_fault_of_ours_tells_no_internals(
        self, gateway: RunningGateway, monkeypatch: pytest.MonkeyPatch, fault: type[Exception]
    ) -> None:
        def explode(**_: object) -> None:
            raise fault("password=hunter2")

        monkeypatch.setattr(gateway.parts.store, "page", explode)
        answer = gateway.http.get("/summaries")
        assert (answer.status_code, answer.json()["code"]) == (500, "internal.error")
        assert "hunter2" not in answer.text
        assert (
            value(gateway, "visum_http_requests_total", method="GET", route="/summaries", status="500") == 1
        )

    def test_what_is_not_there_and_not_possible_are_problems(self, gateway: RunningGateway) -> None:
        missing, impossible = gateway.http.get("/nope"), gateway.http.put("/healthz")
        assert (missing.status_code, missing.json()["code"]) == (404, "request.not_found")
        assert (impossible.status_code, impossible.json()["code"]) == (405, "request.method_not_allowed")
        assert impossible.headers["Allow"] == "GET"
        for answer in (missing, impossible):
            assert answer.headers["Content-Type"] == "application/problem+json"
