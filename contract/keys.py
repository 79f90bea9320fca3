"""The names of our keys in Redis. RQ's own start with `rq:`."""

from __future__ import annotations

import hashlib
from itertools import product

from contract.records import Status, SummaryRecord

ANY = "*"
EXPIRIES = "visum:expiries"  # sorted set: id by the second it expires
ADMISSIONS = "visum:admissions"  # counter that every creation bumps, so that two of them notice each other


SERVICE_SECONDS = "visum:service-seconds"  # list: how long each of the last summaries ran
FORGOTTEN = "visum:forgotten"  # sorted set: sha256 of a deleted video by the second it was deleted
PROBE = "visum:probe"  # written by /readyz
INDEXES = "visum:index:"  # what the names of all indexes begin with
SWEPT = "visum:swept"  # there while the daily sweep of the indexes is not due again


def record_key(summary_id: str) -> str:
    return f"visum:summary:{summary_id}"


def tombstone_key(summary_id: str) -> str:
    return f"visum:tombstone:{summary_id}"


def mended_key(summary_id: str) -> str:
    """There for a while after a summary without a job was given one: one worker does it."""
    return f"visum:mended:{summary_id}"


def idempotency_key(key: str) -> str:
    """Hashed: what a client chose may be long, or hold anything."""
    return f"visum:idempotency:{hashlib.sha256(key.encode()).hexdigest()}"


def index_key(status: Status | None, domain: str | None) -> str:
    """Sorted set of the ids with this status and domain; all scores 0, so the order is the ids' own."""
    return f"{INDEXES}{ANY if status is None else status}:{ANY if domain is None else domain}"


def index_keys(record: SummaryRecord) -> frozenset[str]:
    """The four indexes that a record is in: any/its status by any/its domain."""
    return frozenset(
        index_key(status, domain) for status, domain in product((None, record.status), (None, record.domain))
    )
