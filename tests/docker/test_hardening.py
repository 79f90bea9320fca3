"""What `make check` holds of images and containers: each rule notices when it is broken."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def hardening() -> ModuleType:
    spec = importlib.util.spec_from_file_location("hardening", ROOT / "docker" / "hardening.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def worker() -> dict[str, Any]:
    text = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", (ROOT / "docker-compose.yml").read_text())
    return yaml.safe_load(text)["services"]["worker"]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy of what the images are made of, to be spoilt."""
    (tmp_path / "docker").mkdir()
    (tmp_path / "pyproject.toml").write_text((ROOT / "pyproject.toml").read_text())
    for path in (ROOT / "docker").glob("*.*"):
        (tmp_path / "docker" / path.name).write_text(path.read_text())
    return tmp_path


def test_the_worker_as_it_is_breaks_no_rule(hardening: ModuleType, worker: dict[str, Any]) -> None:
    assert [*hardening.of_service(worker, ROOT)] == []


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
    ],
)
def test_a_container_that_may_more_is_noticed(
    hardening: ModuleType, worker: dict[str, Any], change: dict[str, Any], problem: str
) -> None:
    assert any(problem in found for found in hardening.of_service({**worker, **change}, ROOT))


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
