"""The names of our keys in Redis. RQ's own start with `rq:`."""

from __future__ import annotations

import hashlib
from itertools import product

from contract.records import Status, SummaryRecord
from contract.tenants import DEFAULT_TENANT

ANY = "*"
EXPIRIES = "visum:expiries"  # sorted set: id by the second it expires
API_KEYS = "visum:api-keys"  # hash: an API key by its id
STORED_VIDEOS = "visum:stored-videos"  # hash: by summary, the bytes of its video and its tenant
STORED_BYTES = "visum:stored-bytes"  # hash: by tenant, the bytes of its videos
SERVICE_SECONDS = "visum:service-seconds"  # list: how long each of the last summaries ran
FORGOTTEN = "visum:forgotten"  # sorted set: sha256 of a deleted video by the second it was deleted
PROBE = "visum:probe"  # written by /readyz
INDEXES = "visum:index:"  # what the names of all indexes begin with
SERVICE = "visum:service"  # the id of the service whose records these are; its folder of videos bears it too
SWEPT = "visum:swept"  # there while the daily sweep of the indexes is not due again


def record_key(summary_id: str) -> str:
    return f"visum:summary:{summary_id}"


def tombstone_key(summary_id: str) -> str:
    """Holds the tenant whose summary it was."""
    return f"visum:tombstone:{summary_id}"


def mended_key(summary_id: str) -> str:
    """There for a while after a summary without a job was given one: one worker does it."""
    return f"visum:mended:{summary_id}"


def idempotency_key(key: str, tenant: str = DEFAULT_TENANT) -> str:
    """Hashed: what a client chose may be long, or hold anything."""
    own = key if tenant == DEFAULT_TENANT else f"{tenant}\n{key}"  # a header's value holds no line break
    return f"visum:idempotency:{hashlib.sha256(own.encode()).hexdigest()}"


def index_key(status: Status | None, domain: str | None, tenant: str | None = None) -> str:
    """Sorted set of the ids with this status, domain and tenant; all scores 0, so the order is the ids' own.

    Over all tenants (None) there is one set a status, whatever the domain: nobody lists more than that.
    The default tenant's names are those of the time before tenants. A domain that a client asks for may be any
    text, so it comes last: it can't lead out of its tenant's names.
    """
    owner = "" if tenant in (None, DEFAULT_TENANT) else f"@{tenant}:"
    index = f"{INDEXES}{owner}{ANY if status is None else status}"
    return index if tenant is None else f"{index}:{ANY if domain is None else domain}"


def index_keys(record: SummaryRecord) -> frozenset[str]:
    """The five indexes that a record is in: its tenant's, any/its status by any/its domain, and its status's."""
    own = (
        index_key(status, domain, record.tenant)
        for status, domain in product((None, record.status), (None, record.domain))
    )
    return frozenset((index_key(record.status, None), *own))
