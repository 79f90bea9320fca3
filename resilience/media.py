"""The media corpus: damaged and hostile files through the worker's own decoding, and what became of them.

    python -m resilience.media [--files 10000] [--seed 5] [--keep FOLDER]

Every file goes through `workers.decode.decode` with its server, its sandbox and the limits of a worker. Prints a table
by container and verdict and one line of JSON. Exit status 1 if a promise was broken. Linux only: it reads /proc.
"""

import argparse
import json
import os
import resource
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from contract.errors import Code, JobFailure
from resilience.media_attacks import FRAMES, Attack, attacks
from resilience.media_clips import clips
from resilience.media_mutations import Mutation, mutations
from resilience.media_traps import TOKEN, Traps, set_traps, shows_the_secret
from workers.decode import DecodedVideo, DecoderDied, decode
from workers.decode_probe import missing_layers
from workers.decode_process import DecodeServer
from workers.frame_plan import DecodeLimits, FramePlan

FILES, SEED = 10_000, 5
PLAN = FramePlan(max_frames=16, size_multiple=8, frame_pixels=48 * 64)
LIMITS = DecodeLimits()
"""What a worker has whose settings say nothing."""
ANY_VERDICT = frozenset({FRAMES, *(code for code in Code if code.startswith(("video.", "decode.")))})
_GRACE_S = 5.0
_SETTLE_S = 10.0
_MOST_FAILURES = 20


@dataclass(frozen=True)
class Case:
    """A file and what may become of it. `row` is its line in the table."""

    row: str
    name: str
    data: bytes
    verdicts: frozenset[str]


@dataclass(frozen=True)
class Outcome:
    """What became of it. `status` is that of a decoding process that died."""

    case: Case
    verdict: str
    seconds: float
    status: int | None = None
    broken: str = ""


@dataclass
class Findings:
    """The figures of one run; `failures` are the promises that were broken."""

    seed: int
    table: Counter[tuple[str, str]] = field(default_factory=Counter)
    crashes: Counter[str] = field(default_factory=Counter)
    slowest: Outcome | None = None
    figures: dict[str, Any] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)

    def add(self, outcome: Outcome) -> None:
        """Count one file."""
        self.table[outcome.case.row, outcome.verdict] += 1
        if outcome.verdict == Code.DECODE_CRASHED:
            self.crashes[_cause(outcome.status)] += 1
        if self.slowest is None or outcome.seconds > self.slowest.seconds:
            self.slowest = outcome
        if outcome.broken:
            self.failures.append(f"{outcome.case.row}, {outcome.case.name}: {outcome.broken}")


@dataclass(frozen=True)
class Belongings:
    """What this process has besides memory: it should have as much after a video as before."""

    descriptors: int
    shared_memory: int
    children: int

    @classmethod
    def now(cls) -> "Belongings":
        links = [_target(link) for link in Path("/proc/self/fd").iterdir()]
        tasks = Path("/proc/self/task").glob("*/children")
        return cls(
            descriptors=len(links),
            shared_memory=Path("/proc/self/maps").read_text().count("visum-frames")
            + sum("visum-frames" in link for link in links),
            children=sum(len(task.read_text().split()) for task in tasks),
        )


def main(arguments: Sequence[str]) -> int:
    """Attack, tell, and the exit code."""
    options = _parser().parse_args(arguments)
    if sys.platform != "linux":
        print("the media corpus looks into /proc, which this system does not have", file=sys.stderr)
        return 2
    found = run(options.files, options.seed, keep=options.keep)
    print(table(found))
    failures = found.failures[:_MOST_FAILURES]
    print(json.dumps({**found.figures, "failures": failures, "ok": not found.failures}))
    return 1 if found.failures else 0


def run(files: int, seed: int, *, keep: Path | None = None, at_once: int | None = None) -> Findings:
    """`files` mutations and every attack, `at_once` at a time.

    The peak of memory is that of all children this process ever had: call it in a process that had none.
    """
    found, began = Findings(seed), time.monotonic()
    mutated = list(mutations(list(clips()), files, seed))
    with tempfile.TemporaryDirectory(prefix="visum-media-") as scratch, set_traps(Path(scratch)) as traps:
        hostile = list(attacks(traps.bait))
        before = Belongings.now()
        server = DecodeServer()
        missing = missing_layers(server)
        with ThreadPoolExecutor(at_once or os.cpu_count()) as pool:
            judge = Judge(server, Path(scratch))
            for outcome in pool.map(judge.judge, [*_from_attacks(hostile), *_from_mutations(mutated)]):
                found.add(outcome)
                if keep is not None and (outcome.broken or outcome.status is not None):
                    _keep(outcome, keep)
        left = _still_running(server)
        server.close()
        after = _settled(before)
        found.figures = _figures(found, traps, before, after) | {
            "mutations": len(mutated),
            "attacks": len(hostile),
            "worker_deaths": server.deaths,
            "children_left": left + after.children - before.children,
            "sandbox_missing": missing,
            "seconds": round(time.monotonic() - began, 1),
        }
    _require_nothing(found)
    return found


class Judge:
    """Decodes one file at a time for each thread, and says whether what came back is a clean verdict."""

    def __init__(self, server: DecodeServer, scratch: Path, limits: DecodeLimits = LIMITS) -> None:
        self._server = server
        self._scratch = scratch
        self._limits = limits

    def judge(self, case: Case) -> Outcome:
        path = self._scratch / f"{threading.get_native_id()}.bin"
        path.write_bytes(case.data)
        began, verdict, status, told = time.monotonic(), FRAMES, None, ""
        try:
            told = _odd(decode(path, PLAN, self._limits, server=self._server))
        except JobFailure as failure:
            verdict = failure.code.value
            told = "told the secret" if TOKEN in failure.message else ""
            if isinstance(failure.__cause__, DecoderDied):
                status = failure.__cause__.status
        except Exception as error:  # a worker would have lost the job
            verdict = "error"
            told = f"raised {error!r}"
        seconds = time.monotonic() - began
        if not told and verdict not in case.verdicts:
            told = f"ended as {verdict}"
        if not told and seconds > self._limits.wall_s + _GRACE_S:
            told = f"took {seconds:.0f} s"
        return Outcome(case, verdict, seconds, status, told)


def _odd(video: DecodedVideo) -> str:
    """What is wrong with frames that came back, if anything is."""
    if shows_the_secret(video.frames) or TOKEN.encode() in video.frames.tobytes():
        return "shows the secret"
    if not 0 < len(video.frames) == len(video.timestamps_s) <= PLAN.max_frames:
        return f"{len(video.frames)} frames at {len(video.timestamps_s)} times"
    # A damaged clock may run backwards, and in AVI a sound one does where frames are reordered.
    if not all(0 <= second <= LIMITS.max_duration_s for second in video.timestamps_s):
        return f"frames at {video.timestamps_s}"
    return ""


def _from_attacks(found: Iterable[Attack]) -> Iterator[Case]:
    for attack in found:
        yield Case(f"attack: {attack.kind}", attack.name, attack.data, attack.verdicts)


def _from_mutations(found: Iterable[Mutation]) -> Iterator[Case]:
    for mutation in found:
        yield Case(mutation.clip.container, mutation.name, mutation.data, ANY_VERDICT)


def _figures(found: Findings, traps: Traps, before: Belongings, after: Belongings) -> dict[str, Any]:
    verdicts: Counter[str] = Counter()
    for (_, verdict), count in found.table.items():
        verdicts[verdict] += count
    slowest = found.slowest
    return {
        "seed": found.seed,
        "verdicts": dict(sorted(verdicts.items())),
        "crashes": dict(sorted(found.crashes.items())),
        "secrets_read": traps.reads,
        "connections": traps.connections,
        "descriptors_leaked": after.descriptors - before.descriptors,
        "shared_memory_leaked": after.shared_memory - before.shared_memory,
        "slowest_s": round(slowest.seconds, 2) if slowest else 0.0,
        "slowest": slowest.case.name if slowest else "",
        "largest_process_mib": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss >> 10,
        "limits": {"wall_s": LIMITS.wall_s, "memory_mib": LIMITS.memory_bytes >> 20},
    }


def _require_nothing(found: Findings) -> None:
    """Each of these figures has to be 0, and no process larger than its limit."""
    for name in (
        "worker_deaths",
        "secrets_read",
        "connections",
        "children_left",
        "descriptors_leaked",
        "shared_memory_leaked",
    ):
        if found.figures[name]:
            found.failures.append(f"{name}: {found.figures[name]}")
    if found.figures["largest_process_mib"] > LIMITS.memory_bytes >> 20:
        found.failures.append(f"a process of {found.figures['largest_process_mib']} MiB")


def table(found: Findings) -> str:
    """Rows are containers and kinds of attacks, columns are verdicts."""
    rows = sorted({row for row, _ in found.table})
    verdicts = sorted(
        {verdict for _, verdict in found.table}, key=lambda verdict: (verdict != FRAMES, verdict)
    )
    width = max(len(row) for row in rows)
    lines = ["  ".join([" " * width, *verdicts, "all"])]
    for row in rows:
        counts = [found.table[row, verdict] for verdict in verdicts]
        cells = [f"{count or '·':>{len(verdict)}}" for count, verdict in zip(counts, verdicts, strict=True)]
        lines.append("  ".join([row.ljust(width), *cells, f"{sum(counts):>3}"]))
    return "\n".join(lines)


def _settled(before: Belongings) -> Belongings:
    """What we have once it is no more than before, or after a while."""
    deadline = time.monotonic() + _SETTLE_S
    while (now := Belongings.now()) != before and time.monotonic() < deadline:
        time.sleep(0.05)
    return now


def _still_running(server: DecodeServer) -> int:
    """Decoding processes whose video was answered."""
    deadline = time.monotonic() + _SETTLE_S
    while (left := _children(server.pid)) and time.monotonic() < deadline:
        time.sleep(0.05)
    return left


def _children(pid: int | None) -> int:
    if pid is None:
        return 0
    return sum(len(task.read_text().split()) for task in Path(f"/proc/{pid}/task").glob("*/children"))


def _cause(status: int | None) -> str:
    if status is None:
        return "went with its server"
    return signal.Signals(-status).name if status < 0 else f"exit status {status}"


def _target(link: Path) -> str:
    try:
        return os.readlink(link)
    except FileNotFoundError:  # the folder's own descriptor
        return ""


def _keep(outcome: Outcome, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    name = "".join(letter if letter.isalnum() else "_" for letter in outcome.case.name)
    (folder / f"{outcome.verdict}-{name[:100]}").write_bytes(outcome.case.data)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m resilience.media", description=__doc__.partition("\n")[0]
    )
    parser.add_argument("--files", type=int, default=FILES, help=f"mutated files (default {FILES})")
    parser.add_argument("--seed", type=int, default=SEED, help=f"another seed, other files (default {SEED})")
    parser.add_argument(
        "--keep", type=Path, help="folder for the files that broke a promise or crashed a decoder"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
