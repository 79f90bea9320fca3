"""Every comparison in process runs to its end on a tiny backbone and gives the rows it promises."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.__main__ import COMPARISONS, main
from benchmarks.exchange import exchange
from benchmarks.generation import batching, experts, mixing
from benchmarks.plan import QUICK
from benchmarks.report import Comparison
from benchmarks.service import service
from benchmarks.start import probe
from benchmarks.start_probe import FIRST, LATER, PHASES
from benchmarks.subject import NothingToMeasure, Subject, prepare
from benchmarks.upload import hash_and_store, upload, write_video
from contract.containers import Container, sniff


def figures(found: Comparison) -> list[tuple[str, str, str]]:
    return [(row.name, row.against, row.metric) for row in found.rows]


def test_batching_compares_a_batch_with_one_after_another(subject: Subject) -> None:
    found = batching(subject, QUICK)
    assert figures(found) == [("4 in flight", "one after another", "whole answers")]
    assert found.notes == ("Both ways gave the same answer to 4 of the 4 clips.",)
    assert found.rows[0].value.count == QUICK.answer_rounds


def test_mixing_compares_four_domains_with_one(subject: Subject) -> None:
    found = mixing(subject, QUICK)
    assert {(row.name, row.against) for row in found.rows} == {("4 over 4 domains", "4 of one domain")}
    assert [row.metric for row in found.rows] == ["whole answers", "decode steps alone", "prefill"]


def test_experts_are_compared_with_the_frozen_backbone_in_a_batch_and_alone(subject: Subject) -> None:
    found = experts(subject, QUICK)
    names = {(row.name, row.against) for row in found.rows}
    assert names == {(f"experts, {n} in flight", f"frozen backbone, {n} in flight") for n in (4, 1)}


def test_every_exchange_of_the_bank_is_compared_with_every_way_of_peft(subject: Subject) -> None:
    found = exchange(subject, QUICK)
    assert len(found.rows) == 6
    assert len({(row.name, row.against) for row in found.rows}) == 6
    assert all(row.value.low > 0 for row in found.rows)


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


def test_every_step_of_a_workers_start_is_timed(subject: Subject, redis_url: str) -> None:
    seconds = probe(subject, redis_url)
    assert list(seconds) == [*PHASES, FIRST, LATER]
    assert all(value > 0 for value in seconds.values())


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
