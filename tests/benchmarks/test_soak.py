"""The soak: what counts as flat, what is found, and a short one of the real service."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks.soak import main
from benchmarks.soak_load import Booking
from benchmarks.soak_probe import PROC, Files, Sample, Usage, part_of, process_tree, usage_of
from benchmarks.soak_verdict import (
    MIB,
    MUST_HAVE_HAPPENED,
    RESIDENT,
    ZERO_WHILE_IDLE,
    Evidence,
    judge,
    trend,
)

MINUTES = 30
NOISE = (0.0, 3.0, -2.0, 1.0, 4.0, -3.0)


def _series(mib_a_minute: float, *, warm_up: float = 0.0, start: float = 500.0) -> list[tuple[float, float]]:
    """Half an hour of memory, one point every 10 s: noise, a steady growth, and one that ends within 4 minutes."""
    points = []
    for index in range(6 * MINUTES):
        minute = index / 6
        grown = mib_a_minute * minute + warm_up * min(minute / 4, 1)
        points.append((10.0 * index, (start + NOISE[index % len(NOISE)] + grown) * MIB))
    return points


def test_a_series_that_only_wavers_is_flat() -> None:
    found = trend(_series(0), share=0.03, least=8 * MIB)
    assert found is not None
    assert found.flat


def test_growth_that_ends_with_the_warm_up_is_no_leak() -> None:
    found = trend(_series(0, warm_up=200), share=0.03, least=8 * MIB)
    assert found is not None
    assert found.flat


def test_a_megabyte_a_minute_is_a_leak() -> None:
    found = trend(_series(1), share=0.03, least=8 * MIB)
    assert found is not None
    assert not found.flat
    assert found.growth / MIB == pytest.approx(17.5, abs=2)


def test_a_small_process_may_not_double_either() -> None:
    found = trend(_series(0.6, start=10), share=0.03, least=8 * MIB)
    assert found is not None
    assert not found.flat


def test_a_handful_of_points_says_nothing() -> None:
    assert trend(_series(0)[:6], share=0.03, least=8 * MIB) is None
    assert trend([], share=0.03, least=8 * MIB) is None


@pytest.mark.parametrize(
    ("booking", "status", "record"),
    [
        (Booking(None), 200, {"status": "succeeded", "error": None}),
        (Booking("video.undecodable"), 200, {"status": "failed", "error": {"code": "video.undecodable"}}),
        (Booking(None, "canceled"), 200, {"status": "canceled", "error": {"code": "job.canceled"}}),
        (Booking(None, "deleted"), 410, {}),
        (Booking(None, sampled=True), 200, {"status": "failed", "error": {"code": "model.empty_answer"}}),
    ],
)
def test_an_end_as_it_has_to_be_is_no_problem(booking: Booking, status: int, record: dict[str, Any]) -> None:
    assert booking.problem(status, record) is None


@pytest.mark.parametrize(
    ("booking", "status", "record"),
    [
        (Booking(None), 200, {"status": "running", "error": None}),
        (Booking(None), 200, {"status": "failed", "error": {"code": "job.lost"}}),
        (Booking(None), 200, {"status": "failed", "error": {"code": "model.empty_answer"}}),
        (Booking("video.undecodable"), 200, {"status": "succeeded", "error": None}),
        (Booking(None, "canceled"), 200, {"status": "succeeded", "error": None}),
        (Booking(None, "deleted"), 200, {"status": "succeeded", "error": None}),
        (Booking(None), 404, {}),
    ],
)
def test_any_other_end_is_a_problem(booking: Booking, status: int, record: dict[str, Any]) -> None:
    assert booking.problem(status, record) is not None


def _sample(at_s: float, worker_mib: float = 500, **fields: Any) -> Sample:
    worker = Usage(1, round(worker_mib * MIB), round(1.5 * worker_mib * MIB), 0, threads=10, fds=20)
    parts = {"serve": Usage(1, 1, 1, 1, 1, 1), "gateway": Usage(1, 1, 1, 1, 1, 1), "worker": worker}
    files = Files(blobs=0, partials=0, bytes={}, temporary=(), shared_memory=())
    counts = dict.fromkeys(MUST_HAVE_HAPPENED, 1.0)
    gauges = {"visum_worker_slots_free": 8.0, **dict.fromkeys(ZERO_WHILE_IDLE, 0.0), RESIDENT: 3.0, **counts}
    keys = {"visum:index": 12, "visum:service": 1}
    return replace(Sample(at_s, parts, files, gauges, keys), **fields)


def _evidence(leak: float = 0.0, **fields: Any) -> Evidence:
    """A soak of half an hour in which nothing went wrong, but for `fields`."""
    samples = [_sample(at, memory / MIB) for at, memory in _series(leak)]
    good = Evidence(
        seconds=60.0 * MINUTES,
        before=_sample(0),
        samples=samples,
        after=_sample(1800, files=replace(_sample(0).files, blobs=3)),
        counts={"accepted": 4},
        ends={"succeeded": 2, "canceled": 1, "deleted": 1},
        problems=(),
        depths=(12, 30),
        unfinished=0,
        exit_code=0,
        restarted=(),
        survivors=(),
        shared_memory_left=(),
        errors=(),
    )
    return replace(good, **fields)


def test_a_soak_in_which_nothing_went_wrong_is_fine() -> None:
    assert judge(_evidence()).failures == []


@pytest.mark.parametrize(
    ("evidence", "words"),
    [
        (_evidence(leak=1.5), "the worker's anonymous grew"),
        (_evidence(unfinished=1), "1 summaries wait or run still"),
        (_evidence(problems=("01K ended as running",)), "1 problems"),
        (_evidence(depths=(12, 0)), "no saturation"),
        (_evidence(ends={"succeeded": 2}), "3 videos are stored for 2 summaries"),
        (_evidence(ends={"succeeded": 3, "an empty answer": 2}), "2 of 4 summaries ended as an empty answer"),
        (_evidence(exit_code=None), "SIGTERM ended the service with None"),
        (_evidence(restarted=("visum worker",)), "ended under load"),
        (_evidence(survivors=("visum worker",)), "outlived the service"),
        (_evidence(shared_memory_left=("frames-1",)), "left in /dev/shm"),
        (_evidence(errors=("12:00 ERROR visum.engine: a step failed",)), "1 errors in the log"),
    ],
)
def test_whatever_went_wrong_is_told(evidence: Evidence, words: str) -> None:
    assert any(words in failure for failure in judge(evidence).failures)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"gauges": {"visum_worker_slots_free": 7.0}}, "7.0 slots are free while idle, 8.0 before"),
        (
            {"gauges": {"visum_worker_slots_free": 8.0, "visum_adapter_slots{state=pinned}": 1.0}},
            "1 pinned adapters while idle",
        ),
        ({"gauges": {"visum_worker_slots_free": 8.0}}, "nothing tells of pinned adapters"),
        ({"gauges": {"visum_worker_slots_free": 8.0}}, "no request ever stood in line for an adapter slot"),
        ({"gauges": {RESIDENT: 2.0}}, "2.0 adapters are resident while idle, 3.0 before"),
        ({"keys": {"visum:summary": 4}}, "4 keys visum:summary:… in Redis, at most 3 wanted"),
        ({"keys": {"visum:tombstone": 2}}, "2 keys visum:tombstone:… in Redis, at most 1 wanted"),
        ({"keys": {"rq:job": 41}}, "41 keys rq:job:… in Redis, at most 40 wanted"),
        ({"files": Files(3, 0, {}, (), (), ("left",))}, "files are left in the data folder: ['left']"),
        ({"parts": {"valkey": Usage(1, 1, 1, 100_000, 1, 1)}}, "Valkey grew by 33333 bytes a summary"),
        ({"files": Files(3, 1, {}, (), ())}, "1 half-written uploads are left"),
        ({"files": Files(3, 0, {}, ("upload-7",), ())}, "temporary files are left: ['upload-7']"),
        ({"parts": {"decoding": Usage(1, 1, 1, 1, 1, 1)}}, "1 decoding processes while idle"),
        ({"parts": {"worker": Usage(1, 1, 1, 1, threads=10, fds=99)}}, "99 after"),
    ],
)
def test_whatever_is_left_when_all_is_done_is_told(changed: dict[str, Any], words: str) -> None:
    good = _evidence()
    failures = judge(replace(good, after=replace(good.after, **changed))).failures
    assert any(words in failure for failure in failures)


def test_a_short_run_does_not_judge_memory_and_says_so() -> None:
    verdict = judge(_evidence(leak=1.5, seconds=60.0))
    assert verdict.failures == []
    assert verdict.figures["memory_judged"] is False


needs_proc = pytest.mark.skipif(not PROC.is_dir(), reason="a soak reads /proc")


@needs_proc
def test_a_process_is_found_with_what_it_uses() -> None:
    usage = usage_of(os.getpid())
    assert os.getpid() in process_tree(os.getpid())
    assert usage.rss > usage.anonymous > MIB
    assert usage.processes == 1
    assert min(usage.pss, usage.threads, usage.fds) > 0


def test_whatever_a_worker_starts_is_there_to_decode() -> None:
    assert part_of("/usr/bin/python -m visum worker") == "worker"
    assert part_of("/usr/bin/python -P -m workers.decode_child {}") == "decoding"


@needs_proc
def test_a_short_soak_of_the_real_service_finds_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "serve.log"
    status = main(
        ["--minutes", "0.2", "--clips", "1", "--out", str(tmp_path / "soak.json"), "--keep-log", str(log)]
    )
    printed = capsys.readouterr().out
    assert status == 0, printed + (log.read_text() if log.exists() else "")
    told = json.loads(printed.splitlines()[-1])
    assert told["ok"]
    assert told == json.loads((tmp_path / "soak.json").read_text())
    assert told["jobs"]["accepted"] == sum(told["ends"][end] for end in told["ends"] if " " not in end)
    assert told["jobs"]["published"] > 0
    assert told["idle_after"]["gauges"]["visum_adapter_evictions_total"] > 0
