"""The worker's settings and the promises that their defaults keep."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from contract.queue import LEASE_SECONDS
from workers.settings import WorkerSettings


def test_by_default_a_dead_workers_job_is_taken_over_within_two_minutes() -> None:
    settings = WorkerSettings()
    assert settings.lease_seconds <= LEASE_SECONDS <= 60
    assert settings.lease_seconds + settings.recovery_seconds < 120
    assert settings.lease_seconds + settings.stranded_seconds + 2 * settings.recovery_seconds < 120


def test_a_heartbeat_slower_than_the_lease_is_refused() -> None:
    with pytest.raises(ValidationError, match="at most half of lease_seconds"):
        WorkerSettings(lease_seconds=10, heartbeat_seconds=6)


@pytest.mark.parametrize("slots", [1, 12, 40])
def test_by_default_every_row_and_the_next_jobs_can_have_an_adapter_of_their_own(slots: int) -> None:
    assert WorkerSettings(slots=slots).resident_adapters > slots
    assert WorkerSettings(slots=slots, adapter_slots=3).resident_adapters == 3


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VISUM_DRAIN_SECONDS", "3")
    monkeypatch.setenv("VISUM_BLOB_DIR", "/tmp/somewhere")
    settings = WorkerSettings()
    assert settings.drain_seconds == 3
    assert str(settings.blobs) == "/tmp/somewhere"
