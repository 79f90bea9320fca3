"""How much is measured."""

from __future__ import annotations

from dataclasses import dataclass

MIB = 2**20


@dataclass(frozen=True)
class Plan:
    """Rounds and sizes of every comparison. The kept run says what the defaults take."""

    clips_per_domain: int = 4
    in_flight: int = 8
    answer_rounds: int = 6  # whole answers, eight of them one by one: the longest of the rounds in process
    batch_rounds: int = 4
    fixed_tokens: int = 48
    random_rounds: int = 3
    random_tokens: int = 24
    random_frames: int = 4
    xlora_rounds: int = 2
    xlora_tokens: int = 8
    rotation_rounds: int = 2
    rotation_domains: int = 100
    rotation_requests: int = 100
    exchange_rounds: int = 3
    exchanges: int = 12
    queue_rounds: int = 2
    queue_jobs: int = 64
    simple_jobs: int = 32
    forked_jobs: int = 2
    trial_jobs: int = 6
    service_rounds: int = 2
    service_jobs: int = 16
    start_rounds: int = 2
    upload_rounds: int = 3
    upload_bytes: int = 128 * MIB
    upload_streams: int = 4


FULL = Plan()
QUICK = Plan(
    clips_per_domain=1,
    answer_rounds=2,
    batch_rounds=2,
    fixed_tokens=8,
    random_rounds=2,
    random_tokens=4,
    random_frames=1,
    xlora_rounds=1,
    xlora_tokens=2,
    rotation_rounds=2,
    rotation_domains=20,
    rotation_requests=20,
    queue_rounds=1,
    queue_jobs=8,
    simple_jobs=4,
    forked_jobs=1,
    trial_jobs=1,
    exchange_rounds=2,
    exchanges=4,
    service_rounds=2,
    service_jobs=4,
    start_rounds=1,
    upload_rounds=2,
    upload_bytes=4 * MIB,
    upload_streams=2,
)
"""Only shows that everything runs; its figures mean nothing."""
