"""Every comparison in process runs to its end on a tiny backbone and gives the rows it promises."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.__main__ import COMPARISONS, main
from benchmarks.batching import batching
from benchmarks.domains import domains
from benchmarks.exchange import exchange
from benchmarks.goals import HOTSWAP, LOAD, ROTATION, XLORA, goal_rows, missed
from benchmarks.plain_worker import STAYING
from benchmarks.plan import QUICK
from benchmarks.queued import plain, salted, through_rq
from benchmarks.report import Comparison
from benchmarks.rotation import rotation
from benchmarks.service import service
from benchmarks.start import PHASES, READY, probe, start_worker
from benchmarks.start_probe import FIRST, IMPORTS, LATER
from benchmarks.subject import NothingToMeasure, Subject, prepare
from benchmarks.upload import hash_and_store, upload, write_video
from benchmarks.xlora import xlora
from contract.containers import Container, sniff
from tests.benchmarks.shapes import TINY


def figures(found: Comparison) -> list[tuple[str, str, str]]:
    return [(row.name, row.against, row.metric) for row in found.rows]


def test_batching_compares_a_batch_with_one_after_another(subject: Subject) -> None:
    found = batching(subject, QUICK)
    assert figures(found) == [("8 in flight", "one after another", "whole answers")]
    assert found.notes == ("Both ways gave the same answer to 8 of the 8 clips.",)
    assert found.rows[0].value.count == QUICK.answer_rounds


def test_domains_compares_mixed_with_pure_frozen_and_peft_on_every_model(subject: Subject) -> None:
    found = domains(subject, QUICK, TINY)
    assert {row.model for row in found.rows} == {"demo, fp32", "tiny, fp32", "tiny, bf16"}
    assert {(row.name, row.against) for row in found.rows} == {
        ("8 over 8 domains", "one domain"),
        ("8 over 8 domains", "peft `adapter_names`"),
        ("one domain", "frozen backbone, nothing beside it"),
        ("7 of the first slot's domain, 1 of the last's", "one domain"),
    }
    assert [row.model for row in found.rows if row.name.startswith("7 of")] == ["demo, fp32"]
    assert len(goal_rows([found])) == 3 * 5
    # A missed goal brings the profile of its steps.
    models = {row.model for row in found.rows if missed(row)}
    assert {part.title.partition(":")[0] for part in found.breakdowns} == models
    for part in found.breakdowns:
        assert sum(share.value.median for share in part.shares if share.unit == "%") == pytest.approx(100)


def test_a_whole_answer_is_compared_with_x_lora(subject: Subject) -> None:
    found = xlora(subject, QUICK, TINY)
    assert [row.model for row in found.rows] == ["demo, fp32", "tiny, fp32"]
    assert all(row.goal == XLORA for row in found.rows)


def test_more_domains_than_slots_go_round(subject: Subject) -> None:
    found = rotation(subject, replace(QUICK, rotation_domains=9, rotation_requests=9))
    assert [figure[:2] for figure in figures(found)] == [
        ("9 domains in rotation", "8 domains"),
        ("9 domains in rotation, 12 rows, 16 slots", "8 domains, 12 rows, 16 slots"),
    ]
    assert [row.goal for row in found.rows] == [ROTATION, None]


def test_every_exchange_of_the_bank_is_compared_with_every_way_of_peft(subject: Subject) -> None:
    found = exchange(subject, QUICK, TINY)
    assert len([row for row in found.rows if row.model == "demo, fp32"]) == 6
    assert len([row for row in found.rows if row.model == "tiny, fp32"]) == 3
    assert all(row.value.low > 0 for row in found.rows)
    assert {row.goal for row in found.rows} == {LOAD, HOTSWAP, None}


def test_a_plain_worker_summarizes_and_a_salted_file_is_the_same_video(
    subject: Subject, tmp_path: Path
) -> None:
    clip = subject.clips[0]
    salted_clip = salted(clip, tmp_path, 1)
    assert salted_clip.path.read_bytes() != clip.path.read_bytes()
    with plain(subject, STAYING, threads=1) as redis_url:
        summaries, seconds = through_rq(redis_url, [clip, salted_clip])
    assert seconds > 0
    assert summaries[clip.path.name] == summaries[salted_clip.path.name] != ""


def test_uploads_reach_a_real_gateway(subject: Subject) -> None:
    found = upload(subject, QUICK)
    assert [(row.name, row.against) for row in found.rows] == [
        ("one upload", "hash, write and fsync alone"),
        ("2 uploads at once", "hash, write and fsync alone"),
        ("2 uploads at once", "one upload"),
    ]
    assert not list((subject.scratch / "upload").glob("copy*"))


def test_jobs_go_through_the_whole_service_and_tell_their_stages(subject: Subject) -> None:
    found = service(subject, replace(QUICK, service_rounds=1, service_jobs=2))
    assert figures(found) == [("2 in flight", "one after another", "whole service")]
    alone, together = found.breakdowns
    assert [share.name for share in alone.shares] == [share.name for share in together.shares]
    assert all(share.value.count == 2 for share in together.shares)


def test_every_import_of_a_workers_start_is_timed(subject: Subject, redis_url: str) -> None:
    seconds = probe(subject, redis_url)
    assert list(seconds) == [*IMPORTS, FIRST, LATER]
    assert all(value > 0 for value in seconds.values())


def test_the_phases_of_a_workers_start_are_the_whole(subject: Subject, redis_url: str) -> None:
    seconds = start_worker(subject, redis_url)
    assert list(seconds) == [*PHASES, READY]
    assert all(value > 0 for value in seconds.values())
    assert sum(seconds[phase] for phase in PHASES) == pytest.approx(seconds[READY])


def test_a_file_for_uploading_is_taken_for_an_mp4(tmp_path: Path) -> None:
    video = write_video(tmp_path / "video.mp4", 2**20 + 5)
    assert sniff(video.read_bytes()[:4096]) is Container.MP4
    assert video.stat().st_size == 2**20 + 5
    assert hash_and_store(video, tmp_path / "copy") > 0


def test_a_missing_adapter_is_told_before_anything_is_measured(
    tiny_store: tuple[Path, Path], tmp_path: Path
) -> None:
    with pytest.raises(NothingToMeasure, match="has no adapter for"):
        prepare(str(tiny_store[0]), tmp_path / "empty", 1, tmp_path)


def test_the_command_lists_its_comparisons(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--list"]) == 0
    assert capsys.readouterr().out.split() == list(COMPARISONS)
