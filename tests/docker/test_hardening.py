"""What `make check` holds of images and containers: each rule notices when it is broken."""

from __future__ import annotations

import subprocess
from copy import deepcopy
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError
from redis.retry import Retry

from tests.docker.scripts import script
from tests.service.wire import eventually
from visum.valkey import server_binary

ROOT = Path(__file__).parents[2]
SERVICES = ("redis", "gateway", "worker", "prometheus", "grafana")


@pytest.fixture(scope="module")
def hardening() -> ModuleType:
    return script("hardening")


@pytest.fixture
def compose() -> dict[str, Any]:
    """The compose file as the check reads it, to be spoilt."""
    return deepcopy(script("check").read(ROOT / "docker-compose.yml"))


@pytest.fixture
def worker(compose: dict[str, Any]) -> dict[str, Any]:
    return compose["services"]["worker"]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy of what the images are made of, to be spoilt."""
    (tmp_path / "docker").mkdir()
    (tmp_path / "pyproject.toml").write_text((ROOT / "pyproject.toml").read_text())
    for path in (ROOT / "docker").glob("*.*"):
        (tmp_path / "docker" / path.name).write_text(path.read_text())
    return tmp_path


def test_these_are_all_services(compose: dict[str, Any]) -> None:
    assert tuple(compose["services"]) == SERVICES


@pytest.mark.parametrize("name", SERVICES)
def test_no_service_breaks_a_rule(hardening: ModuleType, compose: dict[str, Any], name: str) -> None:
    assert [*hardening.of_service(compose["services"][name], ROOT)] == []


def test_the_services_together_break_no_rule(hardening: ModuleType, compose: dict[str, Any]) -> None:
    assert [*hardening.of_composition(compose)] == []


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"read_only": False}, "not read-only"),
        ({"cap_drop": []}, "keeps capabilities"),
        ({"security_opt": []}, "may gain privileges"),
        ({"tmpfs": []}, "has no /tmp"),
        ({"privileged": True}, "has privileged"),
        ({"cap_add": ["SYS_ADMIN"]}, "has cap_add"),
        ({"volumes": ["/var/run/docker.sock:/var/run/docker.sock"]}, "mounts /var/run/docker.sock"),
        ({"build": None}, "runs as whoever its image says"),
        ({"build": None, "user": "0:0"}, "runs as 0:0"),
        ({"mem_limit": None}, "has no mem_limit"),
        ({"pids_limit": None}, "has no pids_limit"),
        ({"build": None, "image": "redis:latest"}, "whatever redis:latest means today"),
        ({"build": None, "image": "redis"}, "whatever redis means today"),
    ],
)
def test_a_container_that_may_more_is_noticed(
    hardening: ModuleType, worker: dict[str, Any], change: dict[str, Any], problem: str
) -> None:
    assert any(problem in found for found in hardening.of_service({**worker, **change}, ROOT))


@pytest.mark.parametrize(
    ("service", "key", "value", "problem"),
    [
        ("grafana", "networks", ["metrics", "queue"], "grafana reaches redis over queue"),
        ("redis", "networks", ["metrics"], "prometheus reaches redis over metrics"),
        ("redis", "networks", ["metrics"], "redis is on metrics, which leads outside"),
        ("redis", "command", ["redis-server"], "--appendonly is not set"),
        ("redis", "command", ["redis-server", "--appendfsync", "everysec"], "--appendfsync is everysec"),
        ("redis", "command", ["redis-server"], "--maxmemory-policy is not set"),
        ("redis", "command", ["redis-server"], "has no --maxmemory"),
        ("redis", "command", ["redis-server"], "has no password"),
        ("redis", "command", ["redis-server", "--requirepass", "secret"], "one that is written down here"),
        ("gateway", "volumes", ["data:/data", "models:/models"], "gateway: may write models"),
    ],
)
def test_services_that_reach_more_than_they_need_or_forget_are_noticed(
    hardening: ModuleType, compose: dict[str, Any], service: str, key: str, value: list[str], problem: str
) -> None:
    compose["services"][service][key] = value
    assert any(problem in found for found in hardening.of_composition(compose))


def test_the_redis_of_the_containers_syncs_every_write_and_wants_its_password(
    compose: dict[str, Any], short_path: Path
) -> None:
    """Its own command, to a real server, which is then asked what it made of it."""
    _, *options = compose["services"]["redis"]["command"]
    socket = short_path / "redis.sock"
    where = ["--port", "0", "--unixsocket", str(socket), "--dir", str(short_path)]
    server = subprocess.Popen([str(server_binary()), *options, *where], stdout=subprocess.DEVNULL)
    try:
        eventually(socket.exists)
        once = Retry(NoBackoff(), 0)
        with Redis(unix_socket_path=str(socket), retry=once) as stranger, pytest.raises(AuthenticationError):
            stranger.ping()
        password = options[options.index("--requirepass") + 1]
        with Redis(unix_socket_path=str(socket), password=password, decode_responses=True) as redis:
            assert redis.config_get("append*")["appendonly"] == "yes"
            assert redis.config_get("append*")["appendfsync"] == "always"
            assert redis.config_get("maxmemory*")["maxmemory-policy"] == "noeviction"
            assert int(redis.config_get("maxmemory*")["maxmemory"]) == 512 * 2**20
    finally:
        server.terminate()
        server.wait(timeout=20)


def test_an_image_that_ends_as_root_is_noticed(
    hardening: ModuleType, worker: dict[str, Any], tree: Path
) -> None:
    path = tree / "docker" / "worker.Dockerfile"
    path.write_text(path.read_text() + "USER root\n")
    assert any("runs as root" in found for found in hardening.of_service(worker, tree))


def test_the_images_as_they_are_break_no_rule(hardening: ModuleType, tree: Path) -> None:
    assert [*hardening.of_images(tree)] == []


@pytest.mark.parametrize(
    ("name", "old", "new", "problem"),
    [
        (
            "worker.Dockerfile",
            "--require-hashes -r requirements-worker.lock",
            "torch",
            "takes what the index gives",
        ),
        (
            "gateway.Dockerfile",
            "FROM python:3.12-slim-bookworm\n",
            "FROM python\n",
            "whatever python means today",
        ),
        ("requirements-gateway.lock", "    --hash=sha256:", "    # ", "is not pinned by hash"),
        ("requirements-gateway.lock", "fastapi==", "slowapi==", "does not hold fastapi"),
        ("requirements-worker.lock", "\ntorch==", "\ntorch==1.", "does not hold torch"),
        ("requirements-build.lock", "# ", "--index-url https://example.org/simple\n# ", "names an index"),
    ],
)
def test_a_package_that_is_not_pinned_as_it_must_be_is_noticed(
    hardening: ModuleType, tree: Path, name: str, old: str, new: str, problem: str
) -> None:
    path = tree / "docker" / name
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    assert any(problem in found for found in hardening.of_images(tree))
