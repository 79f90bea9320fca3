"""What every container and image must keep to. Each function gives the ways in which it is broken, as sentences."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

LOCKS = {"build": None, "gateway": (), "worker": ("worker",)}
"""The lock files, and the extras of the project that each is for; the build's is not of the project's packages."""
_PINNED = re.compile(r"^([A-Za-z0-9][A-Za-z0-9._-]*)==(\S+)", re.MULTILINE)
_REDIS = {"--appendonly": "yes", "--appendfsync": "always", "--maxmemory-policy": "noeviction"}
_LOOSENS = ("privileged", "cap_add", "devices", "network_mode", "pid", "ipc", "userns_mode")


def of_service(service: dict[str, Any], root: Path) -> Iterator[str]:
    """One service of the compose file, with what its Dockerfile says where it has one."""
    if service.get("read_only") is not True:
        yield "its root file system is not read-only"
    if service.get("cap_drop") != ["ALL"]:
        yield "keeps capabilities"
    if "no-new-privileges:true" not in service.get("security_opt", []):
        yield "may gain privileges"
    if "/tmp" not in service.get("tmpfs", []):
        yield "has no /tmp of its own, or one on disk"
    for bound in ("mem_limit", "pids_limit"):
        if not service.get(bound):
            yield f"has no {bound}: one part may starve the others"
    if service.get("build") is None and not _is_exact(service.get("image", "")):
        yield f"is whatever {service.get('image')} means today: name a version"
    yield from of_overlay(service)
    if (build := service.get("build")) is not None:
        user = _last_user(root / build["context"] / build["dockerfile"])
    else:
        user = service.get("user")
    if user is None or user.split(":")[0] in ("root", "0"):
        yield f"runs as {user or 'whoever its image says'}: name a user that is not root"


def of_overlay(service: dict[str, Any]) -> Iterator[str]:
    """What no file may add to a service."""
    yield from (f"has {name}" for name in _LOOSENS if service.get(name))
    yield from (f"mounts {volume}" for volume in service.get("volumes", []) if "docker.sock" in str(volume))
    if service.get("read_only") is False:
        yield "its root file system is not read-only"


def of_composition(compose: dict[str, Any]) -> Iterator[str]:
    """What services are to each other: who reaches Redis, what Redis promises, who may write models."""
    services = compose["services"]
    redis = services["redis"]
    for name, service in services.items():
        for network in set(redis["networks"]) & set(service["networks"]):
            if service is not redis and "VISUM_REDIS_URL" not in service.get("environment", {}):
                yield f"{name} reaches redis over {network}, and has no business there"
    for network in redis["networks"]:
        if not compose["networks"][network] or compose["networks"][network].get("internal") is not True:
            yield f"redis is on {network}, which leads outside: make it internal"
    told = dict(zip(redis["command"][1::2], redis["command"][2::2], strict=False))
    for option, value in _REDIS.items():
        if told.get(option) != value:
            yield f"redis: {option} is {told.get(option) or 'not set'}: {value} is what a 202 relies on"
    if "--maxmemory" not in told:
        yield "redis: has no --maxmemory: the kernel ends it where it should refuse"
    if not told.get("--requirepass", "").startswith("$"):
        yield "redis: has no password, or one that is written down here"
    if "models:/models:ro" not in services["gateway"]["volumes"]:
        yield "gateway: may write models, which it only reads"


def of_images(root: Path) -> Iterator[str]:
    """The Dockerfiles' bases and installs, and the lock files."""
    for path in sorted((root / "docker").glob("*.Dockerfile")):
        for base in re.findall(r"^FROM\s+(\S+)", path.read_text(), re.MULTILINE):
            if not _is_exact(base):
                yield f"{path.name}: is built on whatever {base} means today: name a version"
        for command in _pip_commands(path.read_text()):
            hashed = "--require-hashes" in command
            own = "--no-deps" in command and ("--no-index" in command or "--no-build-isolation" in command)
            if not (hashed or own):
                yield f"{path.name}: `{command}` takes what the index gives, unchecked: use --require-hashes"
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    for name, extras in LOCKS.items():
        path = root / "docker" / f"requirements-{name}.lock"
        if not path.exists():
            yield f"{path.name} is missing: run `make lock`"
        else:
            yield from (f"{path.name}: {problem}" for problem in _of_lock(path.read_text(), project, extras))


def _of_lock(text: str, project: dict[str, Any], extras: tuple[str, ...] | None) -> Iterator[str]:
    if "://" in text or re.search(r"^\s*-(i|-index-url|-extra-index-url|-find-links)\b", text, re.MULTILINE):
        yield "names an index or an address: where packages come from is the builder's to say"
    pinned: dict[str, str] = {}
    for entry in re.sub(r"\\\n", "", text).splitlines():
        if not entry.strip() or entry.startswith("#"):
            continue
        match = _PINNED.match(entry)
        if match is None or "--hash=sha256:" not in entry:
            yield f"`{entry[:60]}` is not pinned by hash"
        else:
            pinned[canonicalize_name(match[1])] = match[2]
    if extras is None:
        return
    optional = project["optional-dependencies"]
    for line in [*project["dependencies"], *(line for extra in extras for line in optional[extra])]:
        wanted = Requirement(line)
        version = pinned.get(canonicalize_name(wanted.name))
        if version is None or not wanted.specifier.contains(version, prereleases=True):
            yield f"does not hold {line} (it has {version or 'none'}): run `make lock`"


def _is_exact(image: str) -> bool:
    """Whether it names a version, or even the bytes."""
    return re.search(r"(:v?\d+\.\d+[\w.-]*|@sha256:[0-9a-f]{64})$", image) is not None


def _last_user(dockerfile: Path) -> str | None:
    users = re.findall(r"^USER\s+(\S+)", dockerfile.read_text(), re.MULTILINE)
    return users[-1] if users else None


def _pip_commands(text: str) -> list[str]:
    commands = re.split(r"&&|\n", text.replace("\\\n", " "))
    return [
        " ".join(one.split()) for one in commands if re.search(r"\bpip3? (install|wheel|download)\b", one)
    ]
