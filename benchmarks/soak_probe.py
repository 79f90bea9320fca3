"""What a running service uses: its processes as /proc shows them, its files, its own metrics. Linux only."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Thread

import httpx
from prometheus_client.parser import text_string_to_metric_families
from redis import Redis

from contract.folders import blob_folder, store_folder
from visum.valkey import EmbeddedValkey

PROC, SHARED_MEMORY = Path("/proc"), Path("/dev/shm")
#: What a process is, by what its command line contains; the first that fits.
PARTS = {"visum serve": "serve", "visum gateway": "gateway", "visum worker": "worker", "valkey": "valkey"}
EVICTIONS, WAITS = "visum_adapter_evictions_total", "visum_adapter_waits_total"
COUNTS = (EVICTIONS, WAITS)
DECODING = "decoding"
PARTIAL = ".partial"


@dataclass(frozen=True)
class Usage:
    """All processes of one part together, sizes in bytes.

    `anonymous` is what they allocated themselves and is where a leak shows. `rss` has the pages of files in it,
    `pss` a share of those: it moves with whatever else on the machine maps the same libraries.
    """

    processes: int = 0
    anonymous: int = 0
    rss: int = 0
    pss: int = 0
    threads: int = 0
    fds: int = 0

    def __add__(self, other: Usage) -> Usage:
        return Usage(*(getattr(self, name) + getattr(other, name) for name in self.__dataclass_fields__))


@dataclass(frozen=True)
class Files:
    """What lies about: uploads, half-written ones; bytes on disk; names in our TMPDIR and in /dev/shm; and every file
    of the data folder that is none of an upload's, of Valkey's or of an adapter's."""

    blobs: int
    partials: int
    bytes: Mapping[str, int]
    temporary: tuple[str, ...]
    shared_memory: tuple[str, ...]
    others: tuple[str, ...] = ()


@dataclass(frozen=True)
class Sample:
    """One look at everything, `at_s` seconds after the first. `gauges` are the service's own, and its `COUNTS`, by name
    and labels; `keys` how many of each kind are in Redis."""

    at_s: float
    parts: Mapping[str, Usage]
    files: Files
    gauges: Mapping[str, float]
    keys: Mapping[str, int] = field(default_factory=dict)


class Probe:
    """Looks at one `visum serve`: its process, address, data folder and TMPDIR."""

    def __init__(self, pid: int, url: str, data: Path, temporary: Path) -> None:
        self._pid, self._data, self._temporary = pid, data, temporary
        self._http = httpx.Client(base_url=url, timeout=60.0, trust_env=False)
        self._redis = Redis.from_url(EmbeddedValkey(data / "valkey").url)
        self._began = time.monotonic()

    def close(self) -> None:
        self._http.close()
        self._redis.close()

    def sample(self) -> Sample:
        files = files_of(self._data, self._temporary)
        return Sample(time.monotonic() - self._began, self.parts(), files, self.gauges(), self.keys())

    def parts(self) -> dict[str, Usage]:
        """Part → what its processes use now."""
        found: dict[str, Usage] = {}
        for pid, command in process_tree(self._pid).items():
            name = part_of(command)
            found[name] = found.get(name, Usage()) + usage_of(pid)
        return found

    def keys(self) -> Counter[str]:
        """`visum:summary` → how many keys begin so, of every kind."""
        return Counter(b":".join(key.split(b":")[:2]).decode() for key in self._redis.scan_iter(count=1000))

    def pids(self) -> dict[int, str]:
        """pid → command line of the service and everything that it started."""
        return process_tree(self._pid)

    def gauges(self) -> dict[str, float]:
        """`name{label=value}` → value, of every gauge of /metrics and of `COUNTS`."""
        families = text_string_to_metric_families(self._http.get("/metrics").text)
        return {
            _series(sample.name, sample.labels): sample.value
            for family in families
            for sample in family.samples
            if family.type == "gauge" or sample.name in COUNTS
        }


class Sampler:
    """Samples every `pause_s` seconds in a thread of its own, for the block."""

    def __init__(self, take: Callable[[], Sample], pause_s: float, note: Callable[[Sample], None]) -> None:
        self.samples: list[Sample] = []
        self._take, self._pause_s, self._note = take, pause_s, note
        self._ended = Event()
        self._thread = Thread(target=self._run, name="soak-sampler", daemon=True)

    def __enter__(self) -> Sampler:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._ended.wait(self._pause_s):
            self.samples.append(self._take())
            self._note(self.samples[-1])


def process_tree(root: int) -> dict[int, str]:
    """pid → command line of a process and all its descendants that are alive."""
    children: dict[int, list[int]] = {}
    for pid in (int(entry.name) for entry in PROC.iterdir() if entry.name.isdigit()):
        fields = _read(PROC / str(pid) / "stat").rpartition(")")[2].split()
        if fields and fields[0] != "Z":
            children.setdefault(int(fields[1]), []).append(pid)
    found, waiting = {}, [root]
    while waiting:
        pid = waiting.pop()
        command = _read(PROC / str(pid) / "cmdline").replace("\0", " ").strip()
        if command:
            found[pid] = command
        waiting += children.get(pid, [])
    return found


def part_of(command: str) -> str:
    """The part of the service that a command line belongs to; whatever a worker starts is there to decode."""
    return next((part for words, part in PARTS.items() if words in command), DECODING)


def usage_of(pid: int) -> Usage:
    """What one process uses; nothing if it has just ended."""
    memory = _kib(_read(PROC / str(pid) / "smaps_rollup"))
    status = _kib(_read(PROC / str(pid) / "status"))
    try:
        fds = len(os.listdir(PROC / str(pid) / "fd"))
    except (FileNotFoundError, ProcessLookupError):
        return Usage()
    sizes = (1024 * memory[name] for name in ("Anonymous", "Rss", "Pss"))
    return Usage(1, *sizes, threads=status["Threads"], fds=fds)


def files_of(data: Path, temporary: Path) -> Files:
    """What lies in a data folder, a TMPDIR and /dev/shm."""
    blobs = [name for name in _names(blob_folder(data)) if not name.startswith(".")]
    partials = sum(name.endswith(PARTIAL) for name in blobs)
    folders = {
        "blobs": blob_folder(data),
        "valkey": data / "valkey",
        "store": store_folder(data),
        "all": data,
    }
    sizes = {name: _bytes_in(folder) for name, folder in folders.items()}
    known = [folders["blobs"], folders["valkey"], folders["store"]]
    others = (path for path in data.rglob("*") if path.is_file() and not any(map(path.is_relative_to, known)))
    return Files(
        len(blobs) - partials,
        partials,
        sizes,
        tuple(_names(temporary)),
        tuple(_names(SHARED_MEMORY)),
        tuple(sorted(str(path.relative_to(data)) for path in others)),
    )


def _series(name: str, labels: Mapping[str, str]) -> str:
    inside = ",".join(f"{label}={value}" for label, value in sorted(labels.items()))
    return f"{name}{{{inside}}}" if inside else name


def _kib(text: str) -> Counter[str]:
    """`Name:   123 kB` → {"Name": 123}, of the lines that hold a number."""
    rows = (line.split() for line in text.splitlines())
    return Counter({row[0].rstrip(":"): int(row[1]) for row in rows if len(row) > 1 and row[1].isdigit()})


def _names(folder: Path) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except FileNotFoundError:
        return []


def _bytes_in(folder: Path) -> int:
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(os.path.join(parent, name)).st_size
            except FileNotFoundError:
                continue
    return total


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return ""
