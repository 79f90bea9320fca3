"""Faults that a service has to live with, each with how long it took until all was well again.

Every fault says whom it hits, puts right what it has to (starts the process again, lets it go on), and hands back a
watch: over once the work that it hit is under way elsewhere, or the part that it hit answers again.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from redis import Redis
from redis.exceptions import RedisError

from benchmarks.processes import answers
from contract import keys
from contract.errors import RecordError
from contract.records import Status, decode
from resilience.system import LEASE_S, Part, System
from resilience.traffic import Traffic

LOOK_S = 0.1
REDIS_PAUSE_S, GATEWAY_PAUSE_S, FULL_S = 4.0, 4.0, 5.0
PAUSE_PAST_LEASE_S = 1.6 * LEASE_S
LARGE_UPLOAD = 3 * 2**20  # more than the gateway keeps in memory: part of it is on disk when it is cut


class Watch:
    """Whether all is well again, and since when: `since` is None until a look found it so."""

    def __init__(self, is_well: Callable[[], bool]) -> None:
        self._is_well = is_well
        self.since: float | None = None

    def look(self) -> bool:
        if self.since is None and self._is_well():
            self.since = time.monotonic()
        return self.since is not None

    @property
    def idle(self) -> bool:
        """The fault turned out to have disturbed nothing."""
        return False


@dataclass(frozen=True)
class Fault:
    """One kind of fault: whom it hits, and what it does. `strike` returns once the fault is in place and has been
    put right again as far as the operator's part of it goes; what remains is the service's own part. None: it hit
    nothing that has to come back. A part is hit only while it is `busy`: a fault that disturbs no work shows nothing.
    """

    name: str
    kind: str
    strike: Callable[[Scene, Part], Watch | None]
    busy: Callable[[Scene, Part], object] = lambda scene, part: True


@dataclass(frozen=True)
class Scene:
    """What a fault may use."""

    system: System
    traffic: Traffic
    video: bytes
    draw: Random


class Work(Watch):
    """What ran on a worker when it was hit; all is well once each of these has begun again, or is over.

    A killed decoder may have just been done with its video: with `by_decoder` it hit something only if a summary
    was begun again for that reason.
    """

    def __init__(self, redis: Redis, hit: dict[str, int], *, by_decoder: bool = False) -> None:
        super().__init__(self._taken_up)
        self._redis = redis
        self._left = dict(hit)  # id → generation
        self._by_decoder = by_decoder
        self._tried_again = False

    @property
    def idle(self) -> bool:
        return self._by_decoder and not self._tried_again

    def _taken_up(self) -> bool:
        for summary_id, generation in list(self._left.items()):
            try:
                raw = self._redis.get(keys.record_key(summary_id))
            except RedisError:
                return False
            if raw is None:
                return False
            record = decode(raw)
            again = record.generation > generation
            if record.status.finished or (again and record.status is Status.RUNNING):
                del self._left[summary_id]
                setback = record.setback
                self._tried_again |= again and setback is not None and setback.code.startswith("decode.")
        return not self._left


def _running_at(scene: Scene, pid: int) -> dict[str, int]:
    """id → generation of what runs on this worker."""
    found: dict[str, int] = {}
    try:
        ids = scene.system.redis.zrange(keys.index_key(Status.RUNNING, None), 0, -1)
        for raw in scene.system.redis.mget([keys.record_key(found.decode()) for found in ids]) if ids else ():
            if raw is not None:
                record = decode(raw)
                if f"-{pid}-" in (record.worker or ""):
                    found[record.id] = record.generation
    except (RedisError, RecordError):
        return {}
    return found


def _works(scene: Scene, part: Part) -> bool:
    return bool(_running_at(scene, part.pid))


def _decodes(scene: Scene, part: Part) -> bool:
    return bool(part.decoders())


def _answers(url: str) -> Watch:
    return Watch(lambda: answers(f"{url}/readyz"))


def _any_ready(scene: Scene) -> Watch:
    return Watch(lambda: any(answers(f"{url}/readyz") for url in scene.system.urls))


def _kill_worker(scene: Scene, part: Part) -> Watch | None:
    pid = part.pid
    part.replace(signal.SIGKILL)
    hit = _running_at(scene, pid)  # asked once it is dead: what it held then nobody else has finished
    return Work(scene.system.redis, hit) if hit else None


def _stop_worker(scene: Scene, part: Part) -> Watch | None:
    hit = _running_at(scene, part.pid)
    part.replace(signal.SIGTERM)
    return Work(scene.system.redis, hit) if hit else None


def _pause_worker(scene: Scene, part: Part) -> Watch | None:
    """Others take its work up while it is still paused, so that is when the watch has to look."""
    part.signal(signal.SIGSTOP)
    goes_on_at = time.monotonic() + PAUSE_PAST_LEASE_S
    try:
        hit = _running_at(scene, part.pid)
        work = Work(scene.system.redis, hit) if hit else None
        while time.monotonic() < goes_on_at:
            if work is not None:
                work.look()
            time.sleep(LOOK_S)
    finally:
        part.signal(signal.SIGCONT)
    return work


def _kill_decoder(scene: Scene, part: Part) -> Watch | None:
    """One video's decoding process, as the kernel does when memory runs out."""
    return _kill_decoding(scene, part, lambda decoders: min(decoders))


def _kill_decode_server(scene: Scene, part: Part) -> Watch | None:
    """The program that starts these processes; those under way end with it."""
    return _kill_decoding(scene, part, lambda decoders: next(iter(decoders.values())))


def _kill_decoding(scene: Scene, part: Part, whom: Callable[[dict[int, int]], int]) -> Watch | None:
    hit, decoders = _running_at(scene, part.pid), part.decoders()
    if not hit or not decoders:
        return None
    os.kill(whom(decoders), signal.SIGKILL)
    return Work(scene.system.redis, hit, by_decoder=True)


def _kill_gateway(scene: Scene, part: Part) -> Watch:
    part.replace(signal.SIGKILL)
    return _answers(part.url)


def _stop_gateway(scene: Scene, part: Part) -> Watch:
    part.replace(signal.SIGTERM)
    return _answers(part.url)


def _pause_gateway(scene: Scene, part: Part) -> Watch:
    part.signal(signal.SIGSTOP)
    time.sleep(GATEWAY_PAUSE_S)
    part.signal(signal.SIGCONT)
    return _answers(part.url)


def _cut_upload(scene: Scene, part: Part) -> Watch:
    """Half of a large upload, then SIGKILL; the client sends it again with the same key."""
    key, content = uuid.uuid4().hex, scene.video + _filler(LARGE_UPLOAD)
    with _half_sent(part.url, key, content):
        part.replace(signal.SIGKILL)
    threading.Thread(
        target=scene.traffic.insist, args=(key, content, {"max_new_tokens": "16"}), daemon=True
    ).start()
    return _answers(part.url)


def _kill_redis(scene: Scene, part: Part) -> Watch:
    part.replace(signal.SIGKILL)
    return _any_ready(scene)


def _stop_redis(scene: Scene, part: Part) -> Watch:
    part.replace(signal.SIGTERM)
    return _any_ready(scene)


def _pause_redis(scene: Scene, part: Part) -> Watch:
    part.signal(signal.SIGSTOP)
    time.sleep(REDIS_PAUSE_S)
    part.signal(signal.SIGCONT)
    return _any_ready(scene)


def _fill_redis(scene: Scene, part: Part) -> Watch:
    """No memory left, by its own limit: it refuses every write that needs some."""
    scene.system.redis.config_set("maxmemory", "1mb")
    time.sleep(FULL_S)
    scene.system.redis.config_set("maxmemory", "0")
    return _any_ready(scene)


FAULTS = (
    Fault("worker killed (SIGKILL)", "worker", _kill_worker, busy=_works),
    Fault(
        f"worker paused past its lease (SIGSTOP {PAUSE_PAST_LEASE_S:g} s)",
        "worker",
        _pause_worker,
        busy=_works,
    ),
    Fault("worker restarted in order (SIGTERM)", "worker", _stop_worker, busy=_works),
    Fault("decoder killed (SIGKILL)", "worker", _kill_decoder, busy=_decodes),
    Fault("decode server killed (SIGKILL)", "worker", _kill_decode_server, busy=_decodes),
    Fault("gateway killed (SIGKILL)", "gateway", _kill_gateway),
    Fault("gateway killed during an upload", "gateway", _cut_upload),
    Fault(f"gateway paused (SIGSTOP {GATEWAY_PAUSE_S:g} s)", "gateway", _pause_gateway),
    Fault("gateway restarted in order (SIGTERM)", "gateway", _stop_gateway),
    Fault("Redis killed (SIGKILL)", "Redis", _kill_redis),
    Fault(f"Redis paused (SIGSTOP {REDIS_PAUSE_S:g} s)", "Redis", _pause_redis),
    Fault("Redis restarted in order (SIGTERM)", "Redis", _stop_redis),
    Fault(f"Redis out of memory ({FULL_S:g} s)", "Redis", _fill_redis),
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
