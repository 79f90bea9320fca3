"""Faults that a service has to live with, each with how long it took until all was well again.

Every fault says what it did, puts right what it has to (starts the process again, lets it go on), and hands back a
condition: true once the work that it hit is under way elsewhere, or the part that it hit answers again.
"""

from __future__ import annotations

import signal
import socket
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from redis.exceptions import RedisError

from benchmarks.processes import answers
from contract import keys
from contract.errors import RecordError
from contract.records import Status, decode
from resilience.system import LEASE_S, Part, System
from resilience.traffic import Traffic

Well = Callable[[], bool]

REDIS_PAUSE_S, GATEWAY_PAUSE_S, FULL_S = 4.0, 4.0, 5.0
PAUSE_PAST_LEASE_S = 1.6 * LEASE_S
LARGE_UPLOAD = 3 * 2**20  # more than the gateway keeps in memory: part of it is on disk when it is cut


@dataclass(frozen=True)
class Fault:
    """One kind of fault: whom it hits, and what it does. `strike` returns once the fault is in place and has been
    put right again as far as the operator's part of it goes; what remains is the service's own part. None: it hit
    nothing that has to come back."""

    name: str
    kind: str
    strike: Callable[[Scene, Part], Well | None]


@dataclass(frozen=True)
class Scene:
    """What a fault may use."""

    system: System
    traffic: Traffic
    video: bytes
    draw: Random


def _running_at(scene: Scene, part: Part) -> dict[str, int]:
    """id → generation of what runs on this worker."""
    found: dict[str, int] = {}
    try:
        ids = scene.system.redis.zrange(keys.index_key(Status.RUNNING, None), 0, -1)
        for raw in scene.system.redis.mget([keys.record_key(found.decode()) for found in ids]) if ids else ():
            if raw is not None:
                record = decode(raw)
                if f"-{part.pid}-" in (record.worker or ""):
                    found[record.id] = record.generation
    except (RedisError, RecordError):
        return {}
    return found


def _taken_up(scene: Scene, hit: dict[str, int]) -> Well | None:
    """Whether everything that ran there has begun again elsewhere, or is over."""
    if not hit:
        return None
    left = dict(hit)

    def well() -> bool:
        for summary_id, generation in list(left.items()):
            try:
                raw = scene.system.redis.get(keys.record_key(summary_id))
            except RedisError:
                return False
            if raw is None:
                return False
            record = decode(raw)
            again = record.status is Status.RUNNING and record.generation > generation
            if record.status.finished or again:
                del left[summary_id]
        return not left

    return well


def _answers(url: str) -> Well:
    return lambda: answers(f"{url}/readyz")


def _any_ready(scene: Scene) -> Well:
    return lambda: any(answers(f"{url}/readyz") for url in scene.system.urls)


def _kill_worker(scene: Scene, part: Part) -> Well | None:
    hit = _running_at(scene, part)
    part.replace(signal.SIGKILL)
    return _taken_up(scene, hit)


def _stop_worker(scene: Scene, part: Part) -> Well | None:
    hit = _running_at(scene, part)
    part.replace(signal.SIGTERM)
    return _taken_up(scene, hit)


def _pause_worker(scene: Scene, part: Part) -> Well | None:
    hit = _running_at(scene, part)
    part.signal(signal.SIGSTOP)
    time.sleep(PAUSE_PAST_LEASE_S)
    part.signal(signal.SIGCONT)
    return _taken_up(scene, hit)


def _kill_gateway(scene: Scene, part: Part) -> Well:
    part.replace(signal.SIGKILL)
    return _answers(part.url)


def _stop_gateway(scene: Scene, part: Part) -> Well:
    part.replace(signal.SIGTERM)
    return _answers(part.url)


def _pause_gateway(scene: Scene, part: Part) -> Well:
    part.signal(signal.SIGSTOP)
    time.sleep(GATEWAY_PAUSE_S)
    part.signal(signal.SIGCONT)
    return _answers(part.url)


def _cut_upload(scene: Scene, part: Part) -> Well:
    """Half of a large upload, then SIGKILL; the client sends it again with the same key."""
    key, content = uuid.uuid4().hex, scene.video + _filler(LARGE_UPLOAD)
    with _half_sent(part.url, key, content):
        part.replace(signal.SIGKILL)
    threading.Thread(
        target=scene.traffic.insist, args=(key, content, {"max_new_tokens": "16"}), daemon=True
    ).start()
    return _answers(part.url)


def _kill_redis(scene: Scene, part: Part) -> Well:
    part.replace(signal.SIGKILL)
    return _any_ready(scene)


def _stop_redis(scene: Scene, part: Part) -> Well:
    part.replace(signal.SIGTERM)
    return _any_ready(scene)


def _pause_redis(scene: Scene, part: Part) -> Well:
    part.signal(signal.SIGSTOP)
    time.sleep(REDIS_PAUSE_S)
    part.signal(signal.SIGCONT)
    return _any_ready(scene)


def _fill_redis(scene: Scene, part: Part) -> Well:
    """No memory left, by its own limit: it refuses every write that needs some."""
    scene.system.redis.config_set("maxmemory", "1mb")
    time.sleep(FULL_S)
    scene.system.redis.config_set("maxmemory", "0")
    return _any_ready(scene)


FAULTS = (
    Fault("worker killed (SIGKILL)", "worker", _kill_worker),
    Fault("worker paused past its lease (SIGSTOP)", "worker", _pause_worker),
    Fault("worker restarted in order (SIGTERM)", "worker", _stop_worker),
    Fault("gateway killed (SIGKILL)", "gateway", _kill_gateway),
    Fault("gateway killed during an upload", "gateway", _cut_upload),
    Fault("gateway paused (SIGSTOP)", "gateway", _pause_gateway),
    Fault("gateway restarted in order (SIGTERM)", "gateway", _stop_gateway),
    Fault("Redis killed (SIGKILL)", "Redis", _kill_redis),
    Fault("Redis paused (SIGSTOP)", "Redis", _pause_redis),
    Fault("Redis restarted in order (SIGTERM)", "Redis", _stop_redis),
    Fault("Redis out of memory", "Redis", _fill_redis),
)


def _filler(size: int) -> bytes:
    """An MP4 box that says nothing, of this many bytes."""
    return size.to_bytes(4, "big") + b"free" + bytes(size - 8)


def _half_sent(url: str, key: str, content: bytes) -> socket.socket:
    """A connection over which half of an upload went out."""
    host, _, port = url.removeprefix("http://").partition(":")
    boundary = "cut"
    head = (
        f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="clip.mp4"\r\n'
        "Content-Type: video/mp4\r\n\r\n"
    ).encode()
    tail = f"\r\n--{boundary}--\r\n".encode()
    request = (
        f"POST /summaries HTTP/1.1\r\nHost: {host}\r\nIdempotency-Key: {key}\r\n"
        f"Content-Type: multipart/form-data; boundary={boundary}\r\n"
        f"Content-Length: {len(head) + len(content) + len(tail)}\r\n\r\n"
    ).encode()
    connection = socket.create_connection((host, int(port)), timeout=10.0)
    try:
        connection.sendall(request + head + content[: len(content) // 2])
        time.sleep(0.5)  # the gateway reads; killed any moment of it will do
    except OSError:  # it was down already, or fell over just now
        pass
    return connection
