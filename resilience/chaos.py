"""The kill test: gateways, workers, their decoders and Redis are killed, paused and restarted while jobs go through.

    python -m resilience.chaos --minutes 10 [--seed N] [--backbone NAME|FOLDER] [--out FILE]

Two gateways, three workers and a Valkey with an append-only file, all of them real processes; clients that submit
with idempotency keys and look at every summary all the time. Then the faults end, everything accepted has to come
to its end, and what is left is audited. Prints the faults with their recovery times, and one line of JSON. Exit
status 1 if a promise was broken, or a kind of fault disturbed nothing and so shows nothing. Linux only: it reads /proc.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from random import Random
from typing import Any

import av
from redis.exceptions import RedisError

from benchmarks.processes import PartFailed
from contract.ids import is_id
from contract.keys import index_key, record_key
from contract.queue import open_queue
from contract.records import Status
from resilience.faults import FAULTS, Scene
from resilience.storm import Storm
from resilience.system import PROC, System, running, wait_until
from resilience.traffic import Traffic
from resilience.verdict import Evidence, Verdict, judge
from training.world import DOMAINS, make_clip
from training.world.video import write_mp4

FIRST_CLIP = 7_000  # of the test split
DRAIN_S, SETTLE_S = 240.0, 120.0
LONG_CLIP = 100  # times a clip is repeated in a long one: over a second of decoding can be hit
JOBS_PER_MINUTE = 31  # at least: a little more than 300 in ten minutes
HASTE = 3  # clients submit this much faster where the workers keep up
LONGEST_PAUSE_S = 12.0  # between two faults; in a short run so much less that every kind strikes within it
_DONE = re.compile(r"job (\S+) is done in \d+ ms")


def main(arguments: Sequence[str]) -> int:
    """Storm, drain, audit, tell; the exit code."""
    options = _parser().parse_args(arguments)
    if not PROC.is_dir():
        print("the kill test reads /proc, which this system does not have", file=sys.stderr)
        return 2
    folder = Path(tempfile.mkdtemp(prefix="visum-chaos-", dir="/tmp"))
    try:
        verdict = judge(storm(options, folder))
        if verdict.failures and options.keep_logs is not None:
            _keep(folder, options.keep_logs)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(render(verdict))
    line = json.dumps({**verdict.figures, "failures": verdict.failures[:50], "ok": not verdict.failures})
    if options.out is not None:
        options.out.write_text(line + "\n")
    print(line)
    return 1 if verdict.failures else 0


def storm(options: argparse.Namespace, folder: Path) -> Evidence:
    """Run the service through the faults and to its end; all that was seen."""
    videos = _videos(folder / "clips", options.clips)
    settings = {} if options.backbone is None else {"VISUM_BACKBONE": options.backbone}
    jobs = options.jobs or round(options.minutes * JOBS_PER_MINUTE)
    with running(folder, settings) as system:
        _say(f"two gateways, three workers and Valkey are up; {jobs} jobs in {options.minutes:g} minutes")
        traffic = Traffic(system.urls, videos, options.seed, 60 * options.minutes / (HASTE * jobs))
        with closing(traffic):
            seen = _under_fire(options, system, traffic, videos[0].read_bytes(), jobs)
    return Evidence(
        **seen,
        written=Counter(_DONE.findall(system.logs("worker"))),
        survivors=_survivors(system),
        fewest_jobs=jobs,
    )


def _under_fire(
    options: argparse.Namespace, system: System, traffic: Traffic, video: bytes, jobs: int
) -> dict[str, Any]:
    """The fields of the evidence that need a service which runs."""
    pause_s = min(LONGEST_PAUSE_S, 60 * options.minutes / len(FAULTS))
    scene = Scene(system, traffic, video, Random(options.seed))
    faults = Storm(scene, options.seed, (pause_s / 3, pause_s), _say)
    began = time.monotonic()
    ends_at = began + 60 * options.minutes
    traffic.start()
    faults.run(until=lambda: time.monotonic() > ends_at)
    minutes = (time.monotonic() - began) / 60
    while len(traffic.accepted) < jobs and time.monotonic() < ends_at + DRAIN_S:
        time.sleep(0.2)  # submissions that the faults held up
    traffic.stop()
    _say(
        f"the faults are over; {len(traffic.accepted)} accepted, {len(traffic.unfinished)} unfinished: draining"
    )
    _settle(lambda: not traffic.unfinished, "everything accepted has ended", DRAIN_S)
    _settle(lambda: not any(_books(system).values()), "the queue's lists are empty", SETTLE_S)
    _settle(lambda: not _orphans(system), "the sweep has taken what the faults left", SETTLE_S)
    traffic.look_again()
    return {
        "minutes": minutes,
        "accepted": list(traffic.accepted),
        "ends": dict(traffic.ended),
        "finishes": sorted(traffic.finishes),
        "problems": list(traffic.problems),
        "counts": dict(traffic.counts),
        "struck": faults.struck,
        "stuck": traffic.unfinished,
        "books": _books(system),
        "orphans": _orphans(system),
        "unasked": _unasked(system, traffic),
    }


def _settle(true: Any, what: str, timeout_s: float) -> None:
    """Wait for it; that it did not come about shows in the audit."""
    try:
        wait_until(true, what, timeout_s)
    except PartFailed as late:
        _say(str(late))


def _books(system: System) -> dict[str, int]:
    """How much each of the queue's lists holds; nothing of a job that is over may be in any."""
    queue = open_queue(system.redis)
    try:
        return {
            "waiting list": queue.count,
            "list of jobs taken": system.redis.llen(queue.intermediate_queue_key),
            "list of jobs running": system.redis.zcard(queue.started_job_registry.key),
            "list of jobs to be tried again": system.redis.zcard(queue.scheduled_job_registry.key),
        }
    except RedisError as away:
        raise PartFailed(f"Redis does not answer after the faults: {away}") from away


def _unasked(system: System, traffic: Traffic) -> list[str]:
    """Records of summaries that no answer named."""
    found = [system.redis.zrange(index_key(status, None), 0, -1) for status in Status]
    ids = (raw.decode() for own in found for raw in own)
    return [summary_id for summary_id in ids if summary_id not in traffic.accepted]


def _orphans(system: System) -> list[str]:
    """Files of the video folder that belong to no record: half uploads, and videos whose record was never written."""
    names = system.blobs()
    owned = {
        name for name in names if is_id(name) and system.redis.exists(record_key(name))
    }  # a partial file has a longer name than an id
    return [name for name in names if name not in owned]


def _survivors(system: System) -> list[int]:
    """Processes of ours that are left some seconds after the last part ended."""
    deadline = time.monotonic() + 15.0
    while (left := system.survivors()) and time.monotonic() < deadline:
        time.sleep(0.2)
    return left


def _videos(folder: Path, per_domain: int) -> list[Path]:
    """Clips of every domain, and a long one for each round of these."""
    folder.mkdir()
    paths = []
    for index in range(FIRST_CLIP, FIRST_CLIP + per_domain):
        for domain in DOMAINS:
            paths.append(folder / f"{domain}-{index}.mp4")
            write_mp4(make_clip(domain, index, "test"), paths[-1])
        long = folder / f"long-{index}.mp4"
        _repeat(paths[-1], long)
        paths.append(long)
    return paths


def _repeat(clip: Path, target: Path) -> None:
    """The clip's packets again and again, as one video."""
    with av.open(str(target), "w") as written:
        began = 0
        for _ in range(LONG_CLIP):
            with av.open(str(clip)) as read:
                source = read.streams.video[0]
                if not written.streams:
                    written.add_stream_from_template(source)
                for packet in read.demux(source):
                    if packet.dts is not None:  # the last one only says that there are no more
                        packet.pts, packet.dts = packet.pts + began, packet.dts + began
                        packet.stream = written.streams[0]
                        written.mux(packet)
                began += source.duration


def render(verdict: Verdict) -> str:
    """The table of faults as docs/reliability.md shows it, and the verdict."""
    lines = [
        "| fault | count | well again, s (median / max) | next summary, s (median / max) |",
        "|---|---|---|---|",
    ]
    for name, row in verdict.figures["by_fault"].items():
        cells = (
            f"{spread['median']} / {spread['max']}" if spread else "–"
            for spread in (row["recovery_s"], row["next_finish_s"])
        )
        lines.append(f"| {name} | {row['count']} | {' | '.join(cells)} |")
    told = verdict.figures
    lines.append(
        f"{told['jobs_accepted']} jobs, {told['faults']} faults in {told['minutes']} minutes: "
        f"{told['jobs_lost']} lost, {told['jobs_with_two_results']} with two results, {told['jobs_stuck']} stuck, "
        f"{told['orphaned_blobs']} orphaned files, {told['orphaned_processes']} orphaned processes"
    )
    return "\n".join([*lines, *(verdict.failures or ["every promise held"])])


def _keep(folder: Path, target: Path) -> None:
    target.mkdir(parents=True, exist_ok=True)
    for log in [*folder.glob("*.log"), folder / "valkey" / "valkey.log"]:
        shutil.copy(log, target)


def _say(line: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {line}", file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m resilience.chaos", description=__doc__.split("\n", 1)[0])
    parser.add_argument(
        "--minutes", type=float, default=10.0, help="how long faults happen (default: %(default)g)"
    )
    parser.add_argument("--jobs", type=int, default=0, help="fewest jobs; 0: about 31 a minute")
    parser.add_argument("--clips", type=int, default=2, help="different clips of each domain")
    parser.add_argument("--seed", type=int, default=0, help="of everything that is drawn")
    parser.add_argument("--backbone", help="name or folder; the shipped demo backbone if not given")
    parser.add_argument("--out", type=Path, help="file for the line of JSON")
    parser.add_argument(
        "--keep-logs", type=Path, help="folder for the logs of all parts if a promise was broken"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
