"""`visum serve`: Valkey, gateway and workers as child processes, with one folder for all state."""

from __future__ import annotations

import fcntl
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import httpx
from rich.text import Text

from contract.folders import default_data_dir
from model_store.backbone_ref import find_backbone
from service.settings import GatewaySettings
from visum.errors import CliError, UsageError
from visum.notice import backbone_notice
from visum.parts import PARENT_VARIABLE
from visum.settings import ServeSettings, read_settings
from visum.supervisor import Child, Supervisor
from visum.terminal import status_console
from visum.valkey import EmbeddedValkey

VALKEY_DRAIN_S = 10.0
DRAIN_MARGIN_S = 10.0  # for what a worker does after the drain: hand back, close


def serve(settings: ServeSettings) -> None:
    """Run the whole service until SIGINT or SIGTERM.

    Raises:
        CliError: the port or the data folder is taken, or a part cannot start.
        BackboneError: there is no such backbone.
    """
    # Children get absolute paths: what they are told must not depend on where they run.
    settings = settings.model_copy(update={"data_dir": settings.data_dir.expanduser().absolute()})
    gateway = read_settings(GatewaySettings, host=settings.host, port=settings.port)
    _check_backbone(settings)
    with _own_data_dir(settings.data_dir):
        _check_port(settings)
        metrics_dir = _fresh_metrics_dir(settings.data_dir / "run" / "metrics")
        children, redis_url = _queue(settings)
        drain_s = settings.drain_seconds + DRAIN_MARGIN_S
        environment = _child_environment(settings, redis_url, metrics_dir)
        children.append(_part("gateway", environment, metrics_dir, drain_s))
        for number in range(1, settings.workers + 1):
            children.append(_part(f"worker {number}", environment, metrics_dir, drain_s, "worker"))
        queue = "its own Valkey" if settings.redis_url is None else "the Redis of VISUM_REDIS_URL"
        say(f"starting gateway and {settings.workers} worker(s) on {queue}; data in {settings.data_dir}")
        for line in backbone_notice(settings.backbone, settings.store):
            say(line)
        supervisor = Supervisor(children, ready=partial(_is_ready, settings), say=say)
        supervisor.run(on_ready=partial(_announce, settings, gateway))
    say("stopped")


def say(line: str, style: str = "") -> None:
    """One line of the supervisor's own, on stderr."""
    status_console().print(Text.assemble(("visum: ", "dim"), (line, style)), soft_wrap=True)


def _queue(settings: ServeSettings) -> tuple[list[Child], str]:
    if settings.redis_url is not None:
        return [], settings.redis_url
    valkey = EmbeddedValkey(settings.data_dir / "valkey")
    return [Child("Valkey", valkey.start, drain_s=VALKEY_DRAIN_S, stop_order=1)], valkey.url


def _part(
    name: str, environment: Mapping[str, str], metrics_dir: Path, drain_s: float, command: str = "gateway"
) -> Child:
    def start() -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-m", "visum", command],
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C reaches the supervisor alone, which ends the parts in order
        )

    return Child(name, start, drain_s=drain_s, on_death=partial(_forget_metrics, metrics_dir))


def _child_environment(settings: ServeSettings, redis_url: str, metrics_dir: Path) -> dict[str, str]:
    return {
        **os.environ,
        "VISUM_HOST": settings.host,
        "VISUM_PORT": str(settings.port),
        "VISUM_DATA_DIR": str(settings.data_dir),
        "VISUM_MODEL_STORE": str(settings.store),
        "VISUM_REDIS_URL": redis_url,
        "VISUM_BACKBONE": settings.backbone,
        "VISUM_DRAIN_SECONDS": str(settings.drain_seconds),
        "PROMETHEUS_MULTIPROC_DIR": str(metrics_dir),
        PARENT_VARIABLE: str(os.getpid()),
        "PYTHONUNBUFFERED": "1",
    }


@contextmanager
def _own_data_dir(folder: Path) -> Iterator[None]:
    """Hold the data folder's lock: two supervisors over one folder would write each other's queue."""
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = (folder / "serve.lock").open("a")
    except OSError as error:
        raise CliError(
            f"The data folder {folder} cannot be written: {error.strerror}",
            "Set VISUM_DATA_DIR to one that can.",
        ) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise CliError(
                f"Another `visum serve` already uses {folder}",
                "Stop it, or give this one its own VISUM_DATA_DIR.",
            ) from error
        yield


def _check_backbone(settings: ServeSettings) -> None:
    """Say now that there is no such backbone. A hub id is left to the worker, which fetches it."""
    is_hub_id = settings.backbone.count("/") == 1 and not Path(settings.backbone).expanduser().exists()
    if not is_hub_id:
        find_backbone(settings.backbone, store=settings.store)


def _check_port(settings: ServeSettings) -> None:
    """Say now that the address is taken, rather than let the gateway die of it."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except socket.gaierror as error:
        raise UsageError(
            f"VISUM_HOST {settings.host!r} is no address of this machine", "Try 127.0.0.1."
        ) from error
    with socket.socket(family, kind, protocol) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(address)
        except OSError as error:
            raise CliError(
                f"Port {settings.port} on {settings.host} cannot be had: {error.strerror}",
                "Stop what listens there, or set VISUM_PORT to another port.",
            ) from error


def _fresh_metrics_dir(folder: Path) -> Path:
    """Counters live as long as the service does: files of an earlier run would be added to this one's."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, mode=0o700)
    return folder


def _forget_metrics(folder: Path, pid: int) -> None:
    from prometheus_client import multiprocess

    multiprocess.mark_process_dead(pid, str(folder))


def local_url(settings: ServeSettings) -> str:
    """The gateway's address as this machine reaches it."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.host, settings.host)
    return f"http://[{host}]:{settings.port}" if ":" in host else f"http://{host}:{settings.port}"


def _is_ready(settings: ServeSettings) -> bool:
    try:
        return httpx.get(f"{local_url(settings)}/readyz", timeout=2.0, trust_env=False).status_code == 200
    except httpx.HTTPError:
        return False


def _announce(settings: ServeSettings, gateway: GatewaySettings) -> None:
    url = local_url(settings)
    option = "" if url == "http://127.0.0.1:8000" else f" --url {url}"
    say(f"ready at {url} (interface {url}/docs, metrics {url}/metrics)", "bold green")
    if gateway.auth_required:
        own = "" if settings.data_dir == default_data_dir() else f" --data-dir {settings.data_dir}"
        say(f"requests need a key: visum keys create --tenant NAME{own}")
    say(f"try: visum summarize VIDEO.mp4{option}   (Ctrl-C stops everything)")
