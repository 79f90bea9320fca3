"""How much load: all of it, or as little as shows that everything runs."""

from __future__ import annotations

from dataclasses import dataclass

MIB = 2**20


@dataclass(frozen=True)
class Plan:
    """`submits` are (bytes of a video, requests a round); `records`, how few and how many there are in timed reads."""

    rounds: int = 7
    connections: int = 8
    submits: tuple[tuple[int, int], ...] = ((MIB // 4, 300), (4 * MIB, 60))
    polls: int = 1500
    records: tuple[int, int] = (10, 100_000)
    looks: int = 200
    uploads: int = 200
    upload_bytes: int = MIB
    idle: int = 1000
    slow: int = 200
    crowd_s: float = 12.0  # shorter than a head may take: all the bystanders are there to the end
    memory_s: float = 120.0


FULL = Plan()
QUICK = Plan(
    rounds=2,
    submits=((MIB // 4, 20), (4 * MIB, 8)),
    polls=200,
    records=(10, 1_000),
    looks=100,
    uploads=40,
    idle=100,
    slow=20,
    crowd_s=3.0,
    memory_s=0.0,
)
