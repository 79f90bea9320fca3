"""`visum serve` as a whole: real processes, real videos, real signals."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.visum.running import Service, free_port, run_visum, serving, wait_for


@pytest.fixture(scope="module")
def service(tiny_backbone: Path) -> Iterator[Service]:
    with (
        tempfile.TemporaryDirectory(prefix="visum-", dir="/tmp") as folder,
        serving(Path(folder), tiny_backbone) as running,
    ):
        yield running


def test_videos_sent_by_the_client_come_back_as_records(service: Service, clips: list[Path]) -> None:
    done = run_visum("summarize", *clips, "--url", service.url, "--json", "--max-new-tokens", "8")
    assert done.returncode == 0, done.stderr
    records = [json.loads(line) for line in done.stdout.splitlines()]
    assert [record["request"]["filename"] for record in records] == [clip.name for clip in clips]
    assert all(record["status"] == "succeeded" for record in records)
    assert all(record["result"]["summary"] for record in records)


def test_a_file_that_is_no_video_is_refused_by_name_and_the_others_go_on(
    service: Service, clips: list[Path], tmp_path: Path
) -> None:
    text = tmp_path / "notes.mp4"
    text.write_text("not a video\n" * 100)
    done = run_visum("summarize", text, clips[0], "--url", service.url, "--max-new-tokens", "8")
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith(f"visum: {text}: ")
    assert "[video.unsupported_container]" in done.stderr
    assert done.stdout.startswith(clips[0].name)


def test_a_domain_that_is_not_there_is_refused_naming_those_that_are(
    service: Service, clips: list[Path]
) -> None:
    done = run_visum("summarize", clips[0], "--url", service.url, "--domain", "opera")
    assert done.returncode == 1
    assert "there is no domain 'opera'" in done.stderr


def test_one_scrape_shows_gateway_queue_and_worker(service: Service, clips: list[Path]) -> None:
    run_visum("summarize", clips[0], "--url", service.url, "--max-new-tokens", "8")
    text = httpx.get(f"{service.url}/metrics").text
    for name in ("visum_http_requests_total", "visum_queue_depth", "visum_stage_duration_seconds_bucket"):
        assert f"\n{name}" in text


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed (Debian: prometheus)")
def test_the_metrics_of_all_processes_keep_to_prometheus_conventions(
    service: Service, clips: list[Path]
) -> None:
    done = run_visum("summarize", clips[0], "--url", service.url, "--max-new-tokens", "8")
    assert done.returncode == 0, done.stderr
    text = httpx.get(f"{service.url}/metrics").text
    assert "\nvisum_stage_duration_seconds_bucket" in text, "the worker's part is missing"
    checked = subprocess.run(
        ["promtool", "check", "metrics"], input=text, capture_output=True, text=True, check=False
    )
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, "")


def test_a_second_service_over_the_same_data_is_refused(service: Service, tiny_backbone: Path) -> None:
    done = run_visum(
        "serve", "--port", str(free_port()), "--data-dir", service.data_dir, "--backbone", tiny_backbone
    )
    assert done.returncode == 1
    assert done.stderr == (
        f"visum: Another `visum serve` already uses {service.data_dir}. "
        "Stop it, or give this one its own VISUM_DATA_DIR.\n"
    )


def test_a_port_that_is_taken_is_said_at_once(service: Service, tiny_backbone: Path, tmp_path: Path) -> None:
    done = run_visum(
        "serve", "--port", str(service.port), "--data-dir", tmp_path, "--backbone", tiny_backbone
    )
    assert done.returncode == 1
    assert f"Port {service.port} on 127.0.0.1 cannot be had" in done.stderr
    assert "set VISUM_PORT to another port" in done.stderr


def test_a_killed_worker_is_replaced_and_work_goes_on(service: Service, clips: list[Path]) -> None:
    killed = service.pid_of("visum worker")
    os.kill(killed, signal.SIGKILL)
    wait_for(
        lambda: any(
            args.endswith("visum worker") and pid != killed for pid, args in service.children().items()
        ),
        "another worker",
        service.log,
    )
    done = run_visum("summarize", clips[1], "--url", service.url, "--max-new-tokens", "8")
    assert done.returncode == 0, done.stderr
    assert f"(pid {killed}) ended: signal SIGKILL" in service.log.read_text()


def test_a_stop_ends_every_process_and_a_restart_still_knows_the_records(
    short_path: Path, tiny_backbone: Path, clips: list[Path]
) -> None:
    with serving(short_path, tiny_backbone) as service:
        done = run_visum("summarize", clips[0], "--url", service.url, "--json", "--max-new-tokens", "8")
        record = json.loads(done.stdout)
        started = list(service.children())
        assert service.stop() == 0
        assert not any(_alive(pid) for pid in started)
    with serving(short_path, tiny_backbone) as service:
        again = httpx.get(f"{service.url}/summaries/{record['id']}").json()
        assert again["result"] == record["result"]


def test_what_a_killed_supervisor_leaves_ends_by_itself_or_is_ended_by_the_next(
    short_path: Path, tiny_backbone: Path
) -> None:
    with serving(short_path, tiny_backbone) as service:
        started = service.children()
        service.process.kill()
        service.process.wait()
        parts = [pid for pid, args in started.items() if "visum" in args.split("/")[-1]]
        wait_for(lambda: not any(_alive(pid) for pid in parts), "gateway and worker to end")
    with serving(short_path, tiny_backbone) as service:
        wait_for(lambda: not any(_alive(pid) for pid in started), "the old Valkey to end")


def test_a_backbone_that_is_not_there_is_said_at_once(tmp_path: Path) -> None:
    done = run_visum("serve", "--data-dir", tmp_path, "--backbone", "no-such-backbone")
    assert done.returncode == 1
    assert done.stderr.startswith("visum: no backbone 'no-such-backbone': tried ")
    assert done.stderr.count("\n") == 1


@pytest.mark.skipif(shutil.which("redis-server") is None, reason="redis-server is not installed")
def test_debians_redis_takes_the_place_of_the_embedded_valkey(
    short_path: Path, tiny_backbone: Path, clips: list[Path]
) -> None:
    port = free_port()
    redis_server = subprocess.Popen(
        [
            "redis-server",
            "--port",
            str(port),
            "--dir",
            str(short_path),
            "--appendonly",
            "yes",
            "--bind",
            "127.0.0.1",
        ],
        stdout=subprocess.DEVNULL,
    )
    try:
        with serving(short_path, tiny_backbone, VISUM_REDIS_URL=f"redis://127.0.0.1:{port}/0") as service:
            assert not any("valkey" in args for args in service.children().values())
            done = run_visum("summarize", clips[2], "--url", service.url, "--json", "--max-new-tokens", "8")
            assert json.loads(done.stdout)["status"] == "succeeded"
    finally:
        redis_server.terminate()
        redis_server.wait(timeout=20)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    with open(f"/proc/{pid}/stat") as stat:
        return stat.read().rpartition(")")[2].split()[0] != "Z"
