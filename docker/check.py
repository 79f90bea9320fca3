"""Checks the compose files without a Docker engine, and Prometheus' configuration where promtool is.

The specification's own rules come from `compose_spec`; what it leaves open is checked here: that all volumes,
networks, dependencies and mounted files that a service names are there, and what must not get lost (`hardening.py`):
no root, nothing writable but what is meant to be, nothing without a bound, and every package pinned by hash.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hardening
import yaml
from compose_spec import PyCompose

ROOT = Path(__file__).resolve().parent.parent
COMPOSE, OVERLAYS = ROOT / "docker-compose.yml", (ROOT / "docker" / "gpu.yml",)
PROMETHEUS = ROOT / "docker" / "prometheus" / "prometheus.yml"


def main() -> int:
    problems = [*_problems()]
    for problem in problems:
        print(problem, file=sys.stderr)
    if not problems:
        print("compose files: all well")
    return 1 if problems else 0


def _problems() -> Iterator[str]:
    base = read(COMPOSE)
    for path in (COMPOSE, *OVERLAYS):
        try:
            PyCompose.from_yaml(yaml.safe_dump(read(path)))
        except ValueError as error:
            yield f"{path.name}: {error}"
    for path in OVERLAYS:
        for name in read(path)["services"].keys() - base["services"].keys():
            yield f"{path.name}: there is no service {name} to lay this over"
    for name, service in base["services"].items():
        yield from (f"{COMPOSE.name}: {name}: {problem}" for problem in _dangling(service, base))
        yield from (f"{COMPOSE.name}: {name}: {problem}" for problem in hardening.of_service(service, ROOT))
    for path in OVERLAYS:
        for name, service in read(path)["services"].items():
            yield from (f"{path.name}: {name}: {problem}" for problem in hardening.of_overlay(service))
    yield from (f"{COMPOSE.name}: {problem}" for problem in hardening.of_composition(base))
    yield from hardening.of_images(ROOT)
    if (promtool := shutil.which("promtool")) is not None:
        checked = subprocess.run(
            [promtool, "check", "config", PROMETHEUS], capture_output=True, text=True, check=False
        )
        if checked.returncode != 0:
            yield f"{PROMETHEUS.name}: {checked.stdout}{checked.stderr}"


def read(path: Path) -> dict[str, Any]:
    """The file with merge keys resolved and variables at their defaults, as compose reads it.

    One that has to be set is left as `$NAME`.
    """
    text = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", path.read_text())
    return yaml.safe_load(re.sub(r"\$\{(\w+):\?[^}]*\}", r"$\1", text))


def _dangling(service: dict[str, Any], base: dict[str, Any]) -> Iterator[str]:
    """What a service names that is not there."""
    for other in service.get("depends_on", {}):
        if other not in base["services"]:
            yield f"depends on {other}, which is no service"
        elif "healthcheck" not in base["services"][other]:
            yield f"waits for the health of {other}, which has no healthcheck"
    for network in service.get("networks", []):
        if network not in base["networks"]:
            yield f"is on network {network}, which is not declared"
    for volume in service.get("volumes", []):
        source = volume.split(":")[0]
        if source.startswith(".") and not (ROOT / source).exists():
            yield f"mounts {source}, which is not in the repository"
        if not source.startswith((".", "/")) and source not in base["volumes"]:
            yield f"mounts volume {source}, which is not declared"
    build = service.get("build")
    if build is not None and not (ROOT / build["context"] / build["dockerfile"]).exists():
        yield f"is built from {build['dockerfile']}, which is not in the repository"


if __name__ == "__main__":
    sys.exit(main())
