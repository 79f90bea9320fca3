"""Sweeping: what nobody owns goes, what somebody may still own stays."""

from __future__ import annotations

import os
from datetime import UTC, datetime

import pytest

from contract.ids import new_id
from service.janitor import Janitor
from tests.service.conftest import RunningGateway, StartGateway
from tests.service.wire import MP4, eventually


def test_only_old_videos_without_a_summary_go(gateway: RunningGateway) -> None:
    folder, parts = gateway.parts.settings.blobs, gateway.parts
    janitor = Janitor(parts.store, parts.blobs, parts.queue, orphan_s=3600, repair_s=86_400)
    janitor.sweep()
    owned = gateway.post(MP4).json()["id"]
    orphan, young = (new_id(datetime.now(UTC)) for _ in range(2))
    for name in (orphan, young, "of-somebody-else", "dead.00.partial", "live.00.partial"):
        (folder / name).write_bytes(MP4)
    for name in (owned, orphan, "of-somebody-else", "dead.00.partial"):
        os.utime(folder / name, (0, 0))
    janitor.sweep()
    assert gateway.files() == sorted([owned, young, "of-somebody-else", "live.00.partial"])


def test_a_sweep_that_fails_is_not_the_last_one(
    start_gateway: StartGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    failures = iter([ValueError("nobody thought of this"), OSError("the disk is sulking")])
    sweep, swept = Janitor.sweep, []

    def stumble(janitor: Janitor) -> None:
        if (failure := next(failures, None)) is not None:
            raise failure
        sweep(janitor)
        swept.append(janitor)

    monkeypatch.setattr(Janitor, "sweep", stumble)
    start_gateway(sweep_s=0.01)
    eventually(lambda: len(swept) > 0)
