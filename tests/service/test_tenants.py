"""Tenants see their own summaries, and not that there are others."""

from __future__ import annotations

import json

import pytest
from redis import Redis

from contract import keys
from contract.result import SummaryResult
from tests.service.callers import CallerWithKey
from tests.service.conftest import RunningGateway, StartGateway

UNKNOWN = "01K4Z7QHR8V2M6N3P5T9W1XBYC"


@pytest.fixture
def guarded(start_gateway: StartGateway) -> RunningGateway:
    return start_gateway(auth="required")


@pytest.fixture
def acme(guarded: RunningGateway) -> CallerWithKey:
    return CallerWithKey(guarded, "acme")


@pytest.fixture
def rival(guarded: RunningGateway) -> CallerWithKey:
    return CallerWithKey(guarded, "rival")


def test_another_tenants_summary_is_as_unknown_as_one_that_never_was(
    acme: CallerWithKey, rival: CallerWithKey
) -> None:
    path = acme.post().headers["Location"]
    for ask in (rival.get, rival.delete):
        there, nowhere = ask(path), ask(f"/summaries/{UNKNOWN}")
        assert (there.status_code, nowhere.status_code) == (404, 404)
        assert there.text.replace(path.rpartition("/")[2], UNKNOWN) == nowhere.text
        differ = {"date", "x-request-id"}
        assert {k: v for k, v in there.headers.items() if k not in differ} == {
            k: v for k, v in nowhere.headers.items() if k not in differ
        }
    assert acme.get(path).json()["status"] == "queued"


def test_another_tenants_finished_summary_can_not_be_deleted(
    guarded: RunningGateway, acme: CallerWithKey, rival: CallerWithKey, result: SummaryResult
) -> None:
    path = acme.post().headers["Location"]
    summary_id = path.rpartition("/")[2]
    guarded.store.start(summary_id, "w")
    guarded.store.succeed(summary_id, 1, result)
    assert rival.delete(path).status_code == 404
    assert acme.get(path).json()["result"]["summary"] == result.summary


def test_that_a_summary_is_gone_is_told_to_its_own_tenant_alone(
    acme: CallerWithKey, rival: CallerWithKey
) -> None:
    path = acme.post().headers["Location"]
    assert acme.delete(path).status_code == 200  # canceled
    assert acme.delete(path).status_code == 204
    assert (acme.get(path).status_code, rival.get(path).status_code) == (410, 404)
    assert (acme.delete(path).status_code, rival.delete(path).status_code) == (410, 404)


def test_a_record_that_turned_unreadable_is_still_ones_own(
    guarded: RunningGateway, acme: CallerWithKey, rival: CallerWithKey
) -> None:
    path = acme.post().headers["Location"]
    guarded.parts.redis.set(keys.record_key(path.rpartition("/")[2]), b"garbage")
    assert acme.get(path).json()["code"] == "summary.unreadable"
    assert (rival.get(path).status_code, rival.delete(path).status_code) == (404, 404)


def test_a_listing_shows_ones_own(acme: CallerWithKey, rival: CallerWithKey) -> None:
    mine = [acme.post().json()["id"] for _ in range(3)]
    rival.post()
    shown = acme.get("/summaries").json()["summaries"]
    assert [line["id"] for line in shown] == sorted(mine, reverse=True)
    for select in ({"status": "queued"}, {"domain": "auto"}, {"status": "queued", "domain": "auto"}):
        shown = rival.get("/summaries", params=select).json()["summaries"]
        assert len(shown) == 1
        assert shown[0]["id"] not in mine


@pytest.mark.parametrize(
    "domain",
    [
        "auto:acme",
        "*:acme",
        "acme",
        "@acme:queued:auto",
        "@acme:*",
        "*:@acme",
        "auto:@acme",
        "auto:",
        ":acme",
        "*",
    ],
)
def test_no_domain_that_is_asked_for_leads_into_another_tenants_index(
    guarded: RunningGateway, acme: CallerWithKey, domain: str
) -> None:
    """A listing's domain is any text, and a part of the index's name."""
    mine = acme.post().json()["id"]
    for tenant in ("default", "rival", "tenant"):
        other = CallerWithKey(guarded, tenant)
        for select in ({}, {"status": "queued"}):
            shown = other.get("/summaries", params={"domain": domain, **select}).json()["summaries"]
            assert mine not in [line["id"] for line in shown]


def test_pages_of_one_tenant_do_not_count_the_others(acme: CallerWithKey, rival: CallerWithKey) -> None:
    mine = []
    for _ in range(3):
        mine.append(acme.post().json()["id"])
        rival.post()
    first = acme.get("/summaries", params={"limit": 2}).json()
    second = acme.get("/summaries", params={"limit": 2, "cursor": first["cursor"]}).json()
    assert [line["id"] for line in first["summaries"] + second["summaries"]] == sorted(mine, reverse=True)
    assert second["cursor"] is None


def test_keys_of_one_tenant_see_the_same(guarded: RunningGateway, acme: CallerWithKey) -> None:
    path = acme.post().headers["Location"]
    assert CallerWithKey(guarded, "acme").get(path).status_code == 200


def test_idempotency_keys_of_two_tenants_have_nothing_to_do_with_each_other(
    acme: CallerWithKey, rival: CallerWithKey
) -> None:
    first, other = acme.post(key="k").json()["id"], rival.post(key="k").json()["id"]
    assert first != other
    assert acme.post(key="k").json()["id"] == first
    assert rival.post(b"\0\0\0\x20ftypisom other" * 9, key="k").status_code == 409


def test_the_place_in_the_queue_counts_everybody(acme: CallerWithKey, rival: CallerWithKey) -> None:
    acme.post()
    assert rival.get(rival.post().headers["Location"]).json()["position"] == 2


def test_without_keys_there_is_one_tenant(
    guarded: RunningGateway, acme: CallerWithKey, start_gateway: StartGateway
) -> None:
    acme.post()
    unguarded = start_gateway(auth="off")
    mine = unguarded.post(b"\0\0\0\x20ftypisom" * 9).json()["id"]
    assert [line["id"] for line in unguarded.http.get("/summaries").json()["summaries"]] == [mine]


def test_a_record_of_the_time_before_tenants_is_the_default_tenants(
    guarded: RunningGateway, start_gateway: StartGateway
) -> None:
    """Written as that version wrote it: no tenant, its four indexes, an empty tombstone."""
    unguarded = start_gateway(auth="off")
    path = unguarded.post(b"\0\0\0\x20ftypisom" * 9).headers["Location"]
    summary_id = path.rpartition("/")[2]
    redis: Redis = guarded.parts.redis
    record = json.loads(redis.get(keys.record_key(summary_id)))  # type: ignore[arg-type]
    for name in ("tenant", "request_id"):
        del record[name]
    redis.set(keys.record_key(summary_id), json.dumps({**record, "schema_version": 1}))
    redis.delete("visum:index:queued", keys.STORED_VIDEOS, keys.STORED_BYTES)
    assert set(redis.keys("visum:index:*")) == {
        f"visum:index:{status}:{domain}".encode() for status in ("*", "queued") for domain in ("*", "auto")
    }
    (line,) = unguarded.http.get("/summaries").json()["summaries"]
    assert line["id"] == summary_id
    assert guarded.store.start(summary_id, "w") is not None
    assert redis.zcard("visum:index:running") == 1
    assert guarded.store.finish_canceled(summary_id, 1)
    assert unguarded.http.delete(path).status_code == 204
    assert redis.keys("visum:index:*") == []
    assert redis.hgetall(keys.STORED_BYTES) == {}
    redis.set(keys.tombstone_key(summary_id), b"")
    assert unguarded.http.get(path).status_code == 410
