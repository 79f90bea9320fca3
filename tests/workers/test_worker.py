"""Whole workers: real processes on a real queue."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from contract.errors import Code
from contract.keys import record_key
from contract.records import Status
from model_store.backbone import Backbone
from model_store.manifest import WEIGHTS_FILE
from tests.workers.adapters import publish_random
from tests.workers.service import Service, wait_until
from tests.workers.videos import blobs, write_video
from workers.adapter_desk import PinnedAdapter
from workers.pipeline import Pipeline


def test_a_video_becomes_a_summary(running: Service, video: Path) -> None:
    record = running.ended(running.submit(video))
    assert record.status is Status.SUCCEEDED, running.logs()
    assert record.result is not None
    assert record.result.summary
    assert record.result.video.frames.count == 4
    assert record.result.usage.video_tokens > 0
    assert record.result.gates is None
    assert record.result.model.adapter is None
    assert record.attempts == 1


def test_what_is_made_of_a_deleted_video_is_let_go_of(running: Service, video: Path) -> None:
    summary_id = running.submit(video)
    running.ended(summary_id)
    running.store.delete(summary_id)
    told = "let go of the features of"
    wait_until(lambda: told in running.logs(), "the worker lets go of the features")


def test_what_was_seen_for_one_tenant_is_not_used_for_another(running: Service, video: Path) -> None:
    record = running.store.get(running.submit(video))
    pipeline = object.__new__(Pipeline)
    pipeline._prompts = SimpleNamespace(frame_plan=lambda: None)
    mine, theirs = (
        pipeline._vision_key(record.model_copy(update={"tenant": tenant}), PinnedAdapter())
        for tenant in ("acme", "rival")
    )
    assert mine != theirs
    assert mine[0] == theirs[0] == record.request.sha256  # by which it is let go of


def test_an_adapter_answers_with_its_gates(running: Service, video: Path) -> None:
    record = running.ended(running.submit(video, domain="traffic"))
    assert record.result is not None, running.logs()
    assert (record.result.model.adapter, record.result.model.adapter_version) == ("traffic", 1)
    gates = record.result.gates
    assert gates is not None
    assert gates.temporal is not None
    assert gates.spatial is not None
    assert gates.fusion_alpha == pytest.approx(0.5744, abs=1e-4)
    assert sum(gates.temporal.experts) == pytest.approx(1)
    assert all(sum(layer.experts) == pytest.approx(1) for layer in gates.layers)


def test_an_adapter_of_one_group_fuses_nothing(running: Service, video: Path, backbone: Backbone) -> None:
    publish_random(backbone, running.models, "sewing", 41, one_group=True)
    record = running.ended(running.submit(video, domain="sewing"))
    assert record.result is not None, running.logs()
    gates = record.result.gates
    assert gates is not None
    assert gates.temporal is not None
    assert (gates.spatial, gates.fusion_alpha) == (None, None)


def test_auto_picks_a_domain_and_says_how_sure_it_is(
    running: Service, video: Path, backbone: Backbone
) -> None:
    publish_random(backbone, running.models, "sports", 40)
    record = running.ended(running.submit(video, domain="auto"))
    assert record.result is not None, running.logs()
    assert record.result.domain.requested == "auto"
    assert record.result.domain.selected == "traffic"
    assert {"traffic", "sports"} <= set(record.result.domain.scores)
    assert sum(record.result.domain.scores.values()) == pytest.approx(1)


def test_auto_passes_over_a_domain_whose_adapter_is_damaged(
    running: Service, video: Path, backbone: Backbone
) -> None:
    entry = publish_random(backbone, running.models, "aria", 1)  # with the mark of `traffic`, and before it
    weights = entry.path / WEIGHTS_FILE
    weights.chmod(0o644)
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")

    def answered_by() -> str:
        """Asked until the worker has seen the new domain."""
        record = running.ended(running.submit(video, domain="auto"))
        assert record.result is not None, running.logs()
        assert "aria" not in record.result.domain.scores
        return record.result.domain.selected

    wait_until(
        lambda: answered_by() == "traffic" and "domain aria is left out of routing" in running.logs(),
        "`auto` has met the damaged adapter and chosen the next",
    )


def test_a_seed_gives_the_same_sample_twice(running: Service, video: Path) -> None:
    ids = [running.submit(video, seed=seed) for seed in (7, 7, 8)]
    first, again, other = (running.ended(summary_id).result for summary_id in ids)
    assert first is not None
    assert again is not None
    assert other is not None
    assert first.summary == again.summary != other.summary
    assert first.receipt.seed == 7


def test_a_broken_video_fails_with_its_code(running: Service, tmp_path: Path) -> None:
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"\x00\x00\x00\x18ftypisom" + b"\xff" * 4000)
    record = running.ended(running.submit(broken))
    assert record.status is Status.FAILED
    assert record.error is not None
    assert record.error.code is Code.VIDEO_UNDECODABLE


def test_a_video_that_vanished_fails_with_its_code(running: Service, video: Path) -> None:
    summary_id = running.submit(video)
    running.blobs.delete(summary_id)
    record = running.ended(summary_id)
    assert record.error is not None
    assert record.error.code is Code.VIDEO_MISSING


def test_an_unknown_domain_fails_with_its_code(running: Service, video: Path) -> None:
    record = running.ended(running.submit(video, domain="opera"))
    assert record.error is not None
    assert record.error.code is Code.ADAPTER_UNAVAILABLE
    assert "opera" in record.error.message


def test_a_damaged_record_is_kept_and_does_not_stop_the_worker(running: Service, video: Path) -> None:
    damaged = running.submit(video, damage=b"{")
    after = running.ended(running.submit(video))
    assert after.status is Status.SUCCEEDED
    assert running.redis.get(record_key(damaged)) == b"{"
    wait_until(lambda: running.queue.count == 0, "the queue is empty")


def test_a_job_that_the_queue_cannot_read_fails_and_does_not_stop_the_worker(
    running: Service, video: Path
) -> None:
    unreadable = running.ended(running.submit(video, timeout_s="soon"))
    assert unreadable.error is not None
    assert unreadable.error.code is Code.INTERNAL_ERROR
    assert running.ended(running.submit(video)).status is Status.SUCCEEDED
    assert running.redis.llen(running.queue.intermediate_queue_key) == 0


def test_a_running_summary_is_canceled_between_steps(running: Service, video: Path) -> None:
    summary_id = running.submit(video, max_new_tokens=900)
    wait_until(lambda: running.generating(summary_id), "tokens are generated")
    running.store.request_cancel(summary_id)
    record = running.ended(summary_id, timeout_s=5)
    assert record.status is Status.CANCELED
    wait_until(
        lambda: not running.queue.started_job_registry.get_job_and_execution_ids(), "its lease is gone"
    )


def test_a_job_over_its_time_fails(running: Service, video: Path) -> None:
    record = running.ended(running.submit(video, max_new_tokens=900, timeout_s=1))
    assert record.error is not None
    assert record.error.code is Code.JOB_TIMEOUT


def test_a_new_version_is_used_without_a_restart_and_leaves_running_requests_alone(
    running: Service, video: Path, backbone: Backbone
) -> None:
    publish_random(backbone, running.models, "cooking", 51)
    early = running.submit(video, domain="cooking", max_new_tokens=200)
    wait_until(lambda: running.generating(early), "the first request generates")
    publish_random(backbone, running.models, "cooking", 52)
    later = running.ended(running.submit(video, domain="cooking")).result
    assert later is not None, running.logs()
    assert later.model.adapter_version == 2
    assert not running.store.get(early).status.finished
    first = running.ended(early).result
    assert first is not None
    assert first.model.adapter_version == 1


def test_a_corrupt_newest_version_is_refused_and_the_older_one_serves_on(
    running: Service, video: Path, backbone: Backbone
) -> None:
    publish_random(backbone, running.models, "wildlife", 61)
    weights = publish_random(backbone, running.models, "wildlife", 62).path / "adapter_model.safetensors"
    weights.chmod(0o644)
    raw = bytearray(weights.read_bytes())
    raw[-1] ^= 0xFF
    weights.write_bytes(raw)
    answer = running.ended(running.submit(video, domain="wildlife")).result
    assert answer is not None, running.logs()
    assert answer.model.adapter_version == 1
    pinned = running.ended(running.submit(video, domain="wildlife", adapter_version=2))
    assert pinned.error is not None
    assert pinned.error.code is Code.ADAPTER_REFUSED
    assert pinned.error.message == "Version 2 of 'wildlife' can't be used."
    assert "adapter wildlife/2 is refused: adapter_model.safetensors: its sha256" in running.logs()


def test_different_videos_in_flight_together_keep_their_own_answers(
    service: Service, tmp_path: Path, backbone: Backbone
) -> None:
    store = service.data_dir / "models"
    for seed, domain in ((1, "traffic"), (2, "sports")):
        publish_random(backbone, store, domain, seed)
    videos = [write_video(tmp_path / f"{seed}.mp4", 1 + seed % 3, paint=blobs(seed)) for seed in range(4)]
    wanted = [(video, domain) for video in videos for domain in ("traffic", "sports")]
    service.start_worker(slots=1)
    alone = [service.ended(service.submit(video, domain=domain)).result for video, domain in wanted]
    service.close()
    service.__post_init__()
    service.start_worker(slots=8, step_s=0.02)
    ids = [service.submit(video, domain=domain) for video, domain in wanted]
    together = [service.ended(summary_id).result for summary_id in ids]
    assert all(alone)
    assert [result.summary for result in together if result] == [result.summary for result in alone if result]
