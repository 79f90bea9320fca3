"""Whether a soak went well: flat figures, nothing left behind, every summary in the state that it has to have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any

from benchmarks.soak_probe import DECODING, EVICTIONS, WAITS, Sample, Usage

MIB = 2**20
EARLY, LATE = (1 / 6, 1 / 3), (2 / 3, 1.0)
"""The parts of a run that are compared, as shares of its length: before the first is warm-up."""
FEWEST_SAMPLES = 3
MEMORY_SHARE, MEMORY_BYTES = 0.03, 8 * MIB
"""A part's memory is flat if its late median is above the early one by no more than the larger of the two."""
KINDS, JUDGED_KINDS = ("anonymous", "rss", "pss"), ("anonymous", "rss")
COUNT_SLACK = 16
"""So many descriptors or threads may be more after the load than before it, both idle: connections stay in their
pools, and eight summaries at once need up to two each."""
DRY_SHARE = 0.005
"""Of the looks at the queue, so many may find it empty: the load is on the same machine and gets its turns late."""
ZERO_WHILE_IDLE = {
    "visum_worker_jobs_in_flight": "jobs in flight",
    "visum_queue_depth": "waiting jobs",
    "visum_adapter_slots{state=pinned}": "pinned adapters",
    "visum_engine_rows{state=used}": "engine rows in use",
}
RESIDENT = "visum_adapter_slots{state=resident}"
FLAT_PARTS = ("serve", "gateway", "worker")
"""Valkey keeps every record for its retention and may grow by them, by no more than MOST_BYTES_A_SUMMARY each."""
MOST_BYTES_A_SUMMARY = 12 * 1024
KEYS_SLACK = 40
"""Keys of a kind that may be more after the load than before it: indexes by status and domain, executions' notes."""
EMPTY_ANSWERS_SHARE = 0.001
"""Of what is accepted, so many sampled answers, and one more, may end before their first word."""
SHORTEST_JUDGED_S = 300.0
"""A shorter run is over before its memory could settle: memory is then told, not judged."""
MUST_HAVE_HAPPENED = {
    EVICTIONS: "no adapter was ever evicted",
    WAITS: "no request ever stood in line for an adapter slot",
}
"""Counts that a run which is long enough to be judged has to show: else it has not tried what it is for."""


@dataclass(frozen=True)
class Trend:
    """Medians of a series in the two parts of a run that are compared."""

    early: float
    late: float
    slack: float

    @property
    def growth(self) -> float:
        return self.late - self.early

    @property
    def flat(self) -> bool:
        return self.growth <= self.slack


def trend(points: Sequence[tuple[float, float]], *, share: float, least: float) -> Trend | None:
    """Of (seconds, value) points; None with too few of them to tell.

    It may grow by `share` of its early value, or by `least` if that is more.
    """
    if not points:
        return None
    begin, length = points[0][0], points[-1][0] - points[0][0]
    early, late = (
        [value for at, value in points if _within(at - begin, length, part)] for part in (EARLY, LATE)
    )
    if min(len(early), len(late)) < FEWEST_SAMPLES:
        return None
    before = median(early)
    return Trend(before, median(late), max(share * before, least))


def _within(at: float, length: float, part: tuple[float, float]) -> bool:
    return part[0] * length <= at <= part[1] * length


@dataclass(frozen=True)
class Evidence:
    """Everything that was seen. `before` and `after` are idle, `samples` were taken under load."""

    seconds: float
    before: Sample
    samples: Sequence[Sample]
    after: Sample
    counts: Mapping[str, int]
    ends: Mapping[str, int]
    problems: Sequence[str]
    depths: Sequence[int]
    unfinished: int
    exit_code: int | None
    restarted: Sequence[str]
    survivors: Sequence[str]
    shared_memory_left: Sequence[str]
    errors: Sequence[str]


@dataclass
class Verdict:
    """`failures` are sentences; none means that the soak went well. `figures` go into the JSON line."""

    figures: dict[str, Any] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)

    def hold(self, true: bool, otherwise: str) -> None:
        if not true:
            self.failures.append(otherwise)


def judge(seen: Evidence) -> Verdict:
    """Every check of a soak."""
    verdict = Verdict()
    _judge_summaries(seen, verdict)
    _judge_leftovers(seen, verdict)
    _judge_memory(seen, verdict)
    _judge_counts(seen, verdict)
    verdict.hold(seen.exit_code == 0, f"SIGTERM ended the service with {seen.exit_code}")
    verdict.hold(not seen.restarted, f"processes ended under load: {list(seen.restarted)}")
    verdict.hold(not seen.errors, f"{len(seen.errors)} errors in the log, the first: {seen.errors[:1]}")
    verdict.hold(not seen.survivors, f"processes outlived the service: {list(seen.survivors)}")
    verdict.figures |= {
        "seconds": round(seen.seconds, 1),
        "jobs": dict(seen.counts),
        "ends": dict(seen.ends),
        "jobs_per_minute": round(60 * seen.counts.get("accepted", 0) / seen.seconds, 1),
        "idle_before": _told(seen.before),
        "idle_after": _told(seen.after),
    }
    return verdict


def _judge_summaries(seen: Evidence, verdict: Verdict) -> None:
    verdict.hold(seen.unfinished == 0, f"{seen.unfinished} summaries wait or run still")
    verdict.hold(not seen.problems, f"{len(seen.problems)} problems, the first: {list(seen.problems[:5])}")
    empty, accepted = seen.ends.get("an empty answer", 0), seen.counts.get("accepted", 0)
    verdict.hold(
        empty <= 1 + EMPTY_ANSWERS_SHARE * accepted,
        f"{empty} of {accepted} summaries ended as an empty answer",
    )
    dry = sum(depth == 0 for depth in seen.depths)
    verdict.hold(
        dry <= DRY_SHARE * len(seen.depths),
        f"the queue was empty at {dry} of {len(seen.depths)} looks: no saturation",
    )
    verdict.figures["waiting"] = {"least": min(seen.depths, default=0), "most": max(seen.depths, default=0)}


def _judge_leftovers(seen: Evidence, verdict: Verdict) -> None:
    files, idle = seen.after.files, seen.after.gauges
    kept = sum(seen.ends.get(status, 0) for status in ("succeeded", "failed", "canceled"))
    verdict.hold(files.blobs == kept, f"{files.blobs} videos are stored for {kept} summaries")
    verdict.hold(files.partials == 0, f"{files.partials} half-written uploads are left")
    stray = sorted(set(files.temporary) - set(seen.before.files.temporary))
    verdict.hold(not stray, f"temporary files are left: {stray[:5]}")
    verdict.hold(not seen.shared_memory_left, f"left in /dev/shm: {list(seen.shared_memory_left[:5])}")
    found, allowed = decoding(seen.after), decoding(seen.before)
    verdict.hold(found <= allowed, f"{found} decoding processes while idle, {allowed} before")
    for series, name in ZERO_WHILE_IDLE.items():
        verdict.hold(series in idle, f"nothing tells of {name}: {series} is missing")
        verdict.hold(idle.get(series, 0) == 0, f"{idle.get(series, 0):g} {name} while idle")
    if seen.seconds >= SHORTEST_JUDGED_S:
        for series, otherwise in MUST_HAVE_HAPPENED.items():
            verdict.hold(idle.get(series, 0) > 0, otherwise)
    resident = [sample.gauges.get(RESIDENT) for sample in (seen.before, seen.after)]
    verdict.hold(
        resident[0] == resident[1],
        f"{resident[1]} adapters are resident while idle, {resident[0]} before: a slot is lost",
    )
    others = sorted(set(files.others) - set(seen.before.files.others))
    verdict.hold(not others, f"files are left in the data folder: {others[:5]}")
    _judge_keys(seen, kept, verdict)
    free = [sample.gauges.get("visum_worker_slots_free") for sample in (seen.before, seen.after)]
    verdict.hold(free[0] == free[1], f"{free[1]} slots are free while idle, {free[0]} before")


def _judge_keys(seen: Evidence, kept: int, verdict: Verdict) -> None:
    """A record for every summary that is kept, a tombstone for every deleted one, and nothing of any other kind."""
    before, after = seen.before.keys, seen.after.keys
    wanted = {"visum:summary": kept, "visum:tombstone": seen.ends.get("deleted", 0)}
    for kind in sorted({*after, *wanted}):
        most = wanted.get(kind, before.get(kind, 0) + KEYS_SLACK)
        verdict.hold(
            after.get(kind, 0) <= most, f"{after.get(kind, 0)} keys {kind}:… in Redis, at most {most} wanted"
        )
    verdict.figures["keys"] = dict(after)


def decoding(sample: Sample) -> int:
    """How many processes decode, or stand ready to."""
    return sample.parts.get(DECODING, Usage()).processes


def _judge_memory(seen: Evidence, verdict: Verdict) -> None:
    """Memory under load, part by part, and what a stored summary costs Valkey."""
    judged = seen.seconds >= SHORTEST_JUDGED_S
    memory = {}
    for part in sorted(seen.before.parts):
        for kind in KINDS:
            points = [(s.at_s, getattr(s.parts[part], kind)) for s in seen.samples if part in s.parts]
            found = trend(points, share=MEMORY_SHARE, least=MEMORY_BYTES)
            if found is None:
                verdict.hold(not judged or part == DECODING, f"too few samples of the {part}'s {kind}")
                continue
            told = {"early": _mib(found.early), "late": _mib(found.late), "slack": _mib(found.slack)}
            memory[f"{part} {kind}"] = {**told, "flat": found.flat}
            if judged and part in FLAT_PARTS and kind in JUDGED_KINDS:
                verdict.hold(found.flat, f"the {part}'s {kind} grew: {told} MiB")
    stored = seen.after.files.blobs - seen.before.files.blobs
    grown = seen.after.parts.get("valkey", Usage()).pss - seen.before.parts.get("valkey", Usage()).pss
    verdict.figures |= {"memory_judged": judged, "memory_mib": memory}
    each = round(grown / stored) if stored else None
    verdict.figures["valkey_bytes_per_summary"] = each
    if judged and each is not None:
        verdict.hold(each <= MOST_BYTES_A_SUMMARY, f"Valkey grew by {each} bytes a summary that is kept")
    workers = [(sample.at_s, sample.parts["worker"]) for sample in seen.samples if "worker" in sample.parts]
    verdict.figures["worker_by_second"] = [
        [round(at), _mib(usage.anonymous), usage.fds, usage.threads] for at, usage in workers
    ]


def _judge_counts(seen: Evidence, verdict: Verdict) -> None:
    for part in FLAT_PARTS:
        before, after = (sample.parts.get(part, Usage()) for sample in (seen.before, seen.after))
        for kind in ("fds", "threads"):
            told = f"{getattr(before, kind)} {kind} of the {part} while idle before, {getattr(after, kind)} after"
            verdict.hold(getattr(after, kind) <= getattr(before, kind) + COUNT_SLACK, told)


def _told(sample: Sample) -> dict[str, Any]:
    parts = {
        part: {**asdict(usage), **{kind: _mib(getattr(usage, kind)) for kind in KINDS}}
        for part, usage in sorted(sample.parts.items())
    }
    folders = {name: _mib(size) for name, size in sample.files.bytes.items()}
    return {
        "parts_mib": parts,
        "videos": sample.files.blobs,
        "folders_mib": folders,
        "gauges": dict(sample.gauges),
    }


def _mib(size: float) -> float:
    return round(size / MIB, 1)
