"""What one tenant may use: rate, unfinished summaries, stored bytes."""

from __future__ import annotations

import select
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import pytest

from contract import keys
from service.access import Caller
from service.settings import GatewaySettings
from service.upload_room import Place
from tests.service.callers import CallerWithKey
from tests.service.conftest import RunningGateway, StartGateway
from tests.service.wire import MP4, MP4_HEAD, chunk, connection, eventually, file_begins, status_of


class TestRate:
    def test_more_than_so_many_a_minute_are_refused_until_they_are_not(
        self, start_gateway: StartGateway
    ) -> None:
        gateway = start_gateway(auth="required", quota_submits_per_minute=3)
        acme, rival = CallerWithKey(gateway, "acme"), CallerWithKey(gateway, "rival")
        assert [acme.post().status_code for _ in range(4)] == [202, 202, 202, 429]
        refused = acme.post()
        assert refused.json()["code"] == "quota.rate"
        assert 1 <= int(refused.headers["Retry-After"]) <= 60
        assert rival.post().status_code == 202
        assert acme.get("/summaries").status_code == 200

    def test_the_keys_of_a_tenant_count_together_at_all_gateways(self, start_gateway: StartGateway) -> None:
        settings = {"auth": "required", "quota_submits_per_minute": 2}
        one, two = start_gateway(**settings), start_gateway(**settings)
        assert CallerWithKey(one, "acme").post().status_code == 202
        assert CallerWithKey(two, "acme").post().status_code == 202
        assert CallerWithKey(one, "acme").post().status_code == 429

    def test_it_is_refused_before_the_upload_is_read(self, start_gateway: StartGateway) -> None:
        gateway = start_gateway(auth="required", quota_submits_per_minute=1)
        acme = CallerWithKey(gateway, "acme")
        acme.post()
        with connection(gateway.url) as wire:
            wire.sendall(acme.post_head(10_000_000) + file_begins())
            assert status_of(wire) == 429

    def test_many_at_once_do_not_get_past_it(self, start_gateway: StartGateway) -> None:
        gateway = start_gateway(auth="required", quota_submits_per_minute=5)
        acme = CallerWithKey(gateway, "acme")
        with ThreadPoolExecutor(16) as pool:
            codes = list(pool.map(lambda _: acme.post().status_code, range(16)))
        assert sorted(codes) == [202] * 5 + [429] * 11


class TestUnfinished:
    def test_a_tenant_may_have_so_many_at_once(self, start_gateway: StartGateway) -> None:
        gateway = start_gateway(auth="required", quota_unfinished=2)
        acme, rival = CallerWithKey(gateway, "acme"), CallerWithKey(gateway, "rival")
        first, _ = acme.post(), acme.post()
        gateway.store.start(first.json()["id"], "w")  # what runs counts like what waits
        refused = acme.post()
        assert (refused.status_code, refused.json()["code"]) == (429, "quota.concurrency")
        assert int(refused.headers["Retry-After"]) >= 1
        assert rival.post().status_code == 202
        assert len(gateway.files()) == 3

    def test_one_that_is_done_makes_room(self, start_gateway: StartGateway) -> None:
        gateway = start_gateway(auth="required", quota_unfinished=1)
        acme = CallerWithKey(gateway, "acme")
        path = acme.post().headers["Location"]
        assert acme.post().status_code == 429
        assert acme.delete(path).status_code == 200
        assert acme.post().status_code == 202

    def test_many_at_once_do_not_get_past_it_and_leave_no_video(self, start_gateway: StartGateway) -> None:
        gateway = start_gateway(auth="required", quota_unfinished=3)
        acme = CallerWithKey(gateway, "acme")
        with ThreadPoolExecutor(12) as pool:
            codes = list(pool.map(lambda _: acme.post().status_code, range(12)))
        assert sorted(codes) == [202] * 3 + [429] * 9
        assert len(gateway.files()) == 3

    def test_a_repeated_request_is_answered_though_there_is_no_room(
        self, start_gateway: StartGateway
    ) -> None:
        gateway = start_gateway(auth="required", quota_unfinished=1, quota_stored_bytes=len(MP4))
        acme = CallerWithKey(gateway, "acme")
        first = acme.post(key="k").json()
        assert acme.post(key="k").json() == first


class TestStorage:
    def test_the_videos_of_a_tenant_take_so_many_bytes(self, start_gateway: StartGateway) -> None:
        gateway = start_gateway(auth="required", quota_stored_bytes=2 * len(MP4))
        acme, rival = CallerWithKey(gateway, "acme"), CallerWithKey(gateway, "rival")
        assert [acme.post().status_code for _ in range(3)] == [202, 202, 429]
        assert acme.post(b"\0\0\0\x20ftypisom" + bytes(16)).json()["code"] == "quota.storage"
        assert rival.post().status_code == 202
        assert len(gateway.files()) == 3

    def test_a_deleted_summary_gives_its_bytes_back(self, start_gateway: StartGateway) -> None:
        gateway = start_gateway(auth="required", quota_stored_bytes=len(MP4))
        acme = CallerWithKey(gateway, "acme")
        path = acme.post().headers["Location"]
        acme.delete(path)  # canceled, and kept
        assert acme.post().status_code == 429
        acme.delete(path)
        assert gateway.parts.redis.hget(keys.STORED_BYTES, "acme") == b"0"
        assert acme.post().status_code == 202

    def test_one_that_expires_gives_them_back_even_if_it_turned_unreadable(
        self, start_gateway: StartGateway
    ) -> None:
        gateway = start_gateway(auth="required", quota_stored_bytes=len(MP4), retention_s=1)
        acme = CallerWithKey(gateway, "acme")
        path = acme.post().headers["Location"]
        acme.delete(path)
        gateway.parts.redis.set(keys.record_key(path.rpartition("/")[2]), b"garbage")
        eventually(lambda: gateway.store.expire_due() != [])
        assert gateway.store.expire_due() == []
        assert gateway.parts.redis.hget(keys.STORED_BYTES, "acme") == b"0"
        assert gateway.parts.redis.hlen(keys.STORED_VIDEOS) == 0
        assert (acme.get(path).status_code, CallerWithKey(gateway, "rival").get(path).status_code) == (
            410,
            404,
        )

    def test_what_announces_itself_as_too_much_is_refused_before_it_is_read(
        self, start_gateway: StartGateway
    ) -> None:
        gateway = start_gateway(auth="required", quota_stored_bytes=1_000_000)
        acme = CallerWithKey(gateway, "acme")
        with connection(gateway.url) as wire:
            wire.sendall(acme.post_head(10_000_000) + file_begins())
            assert status_of(wire) == 429
        assert gateway.files() == []


@pytest.fixture
def begin() -> Iterator[Callable[..., socket.socket]]:
    """Begins an upload of so many bytes (None: it does not say), sends the first of them, and leaves it open."""
    with ExitStack() as stack:

        def upload(
            gateway: RunningGateway, caller: CallerWithKey, size: int | None, sent: int = 0, key: str = ""
        ) -> socket.socket:
            wire = stack.enter_context(connection(gateway.url))
            head = caller.post_head(size)
            if key:
                head = head.replace(b"\r\n", f"\r\nIdempotency-Key: {key}\r\n".encode(), 1)
            body = file_begins() + MP4_HEAD + bytes(sent)
            wire.sendall(head + (body if size is not None else chunk(body)))
            return wire

        yield upload


Begin = Callable[..., socket.socket]


class TestUnderWay:
    """What a tenant is sending counts as what it has."""

    def test_uploads_that_do_not_end_hold_no_more_places_than_their_tenant_may_have_summaries(
        self, start_gateway: StartGateway, begin: Begin
    ) -> None:
        gateway = start_gateway(auth="required", max_uploads=4, quota_unfinished=2)
        bad, good = CallerWithKey(gateway, "bad"), CallerWithKey(gateway, "good")
        for _ in range(2):
            begin(gateway, bad, 100_000)
        eventually(lambda: len(gateway.parts.upload_room.counting("bad")) == 2)
        assert [status_of(begin(gateway, bad, 100_000)) for _ in range(3)] == [429] * 3
        refused = bad.post()
        assert (refused.json()["code"], refused.headers["Retry-After"]) == ("quota.concurrency", "5")
        assert good.post().status_code == 202

    def test_they_count_beside_the_summaries_that_are_unfinished(
        self, start_gateway: StartGateway, begin: Begin
    ) -> None:
        gateway = start_gateway(auth="required", quota_unfinished=2)
        acme = CallerWithKey(gateway, "acme")
        assert acme.post().status_code == 202
        begin(gateway, acme, 100_000)
        eventually(lambda: len(gateway.parts.upload_room.counting("acme")) == 1)
        assert acme.post().status_code == 429

    def test_a_key_that_was_used_before_opens_no_more_of_them(
        self, start_gateway: StartGateway, begin: Begin
    ) -> None:
        gateway = start_gateway(auth="required", quota_unfinished=1)
        acme = CallerWithKey(gateway, "acme")
        assert acme.post(key="k").status_code == 202
        begin(gateway, acme, 100_000, key="k")
        eventually(lambda: len(gateway.parts.upload_room.counting("acme")) == 1)
        assert acme.post(key="k").json()["code"] == "quota.concurrency"

    def test_bytes_that_were_announced_count_for_their_tenant_and_not_against_others(
        self, start_gateway: StartGateway, begin: Begin, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        gib = 2**30
        gateway = start_gateway(auth="required", quota_stored_bytes=3 * gib)
        monkeypatch.setattr(gateway.parts.blobs, "free_bytes", lambda: 10 * gib)
        bad, good = CallerWithKey(gateway, "bad"), CallerWithKey(gateway, "good")
        begin(gateway, bad, 2 * gib)
        eventually(lambda: gateway.parts.upload_room.outstanding_bytes > gib)
        assert [status_of(begin(gateway, bad, 2 * gib)) for _ in range(4)] == [429] * 4
        assert good.post().status_code == 202

    @pytest.mark.parametrize("announced", [1_900_000, None])
    def test_bytes_that_came_in_are_no_more_on_the_disk_than_their_tenant_may_have(
        self, start_gateway: StartGateway, begin: Begin, announced: int | None
    ) -> None:
        gateway = start_gateway(auth="required", quota_stored_bytes=2_000_000)
        acme = CallerWithKey(gateway, "acme")
        first = begin(gateway, acme, announced, sent=1_200_000)
        eventually(lambda: sum(place.received_bytes for place in _under_way(gateway)) > 1_200_000)
        assert [status_of(begin(gateway, acme, announced, sent=1_500_000)) for _ in range(3)] == [429] * 3
        eventually(lambda: len(gateway.files()) == 1)  # the others' pieces are gone
        assert not select.select([first], [], [], 0)[0]  # and it may go on

    def test_uploads_that_the_disk_keeps_waiting_hold_no_more_places_either(
        self, start_gateway: StartGateway, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        gateway = start_gateway(auth="required", max_uploads=4, quota_unfinished=2)
        bad, good = CallerWithKey(gateway, "bad"), CallerWithKey(gateway, "good")
        admit, going_on = gateway.parts.admission.admit, threading.Event()

        def admit_later(*args: Any, caller: Caller, **options: Any) -> str:
            assert caller.tenant != "bad" or going_on.wait(60)
            return admit(*args, caller=caller, **options)

        monkeypatch.setattr(gateway.parts.admission, "admit", admit_later)
        with ThreadPoolExecutor(2) as pool:
            sent = [pool.submit(bad.post) for _ in range(2)]
            eventually(lambda: gateway.parts.upload_room.held("bad") == 2)
            eventually(lambda: not gateway.parts.upload_room.counting("bad"))
            refused = [bad.post().json()["code"] for _ in range(3)]
            answered = good.post().status_code
            going_on.set()
        assert refused == ["quota.concurrency"] * 3
        assert answered == 202
        assert [answer.result().status_code for answer in sent] == [202, 202]

    def test_many_at_once_that_are_not_refused_by_one_another_all_get_in(
        self, start_gateway: StartGateway
    ) -> None:
        gateway = start_gateway(auth="required", quota_unfinished=12, quota_stored_bytes=12 * len(MP4))
        acme = CallerWithKey(gateway, "acme")
        with ThreadPoolExecutor(12) as pool:
            codes = list(pool.map(lambda _: acme.post().status_code, range(12)))
        assert codes == [202] * 12


def _under_way(gateway: RunningGateway) -> list[Place]:
    return gateway.parts.upload_room.counting()


class TestSettings:
    def test_a_tenant_may_have_a_quota_of_its_own(
        self, start_gateway: StartGateway, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("VISUM_TENANT_QUOTAS", '{"acme": {"unfinished": 0}, "small": {"unfinished": 1}}')
        gateway = start_gateway(auth="required", quota_unfinished=2)
        posted = {
            tenant: [CallerWithKey(gateway, tenant).post().status_code for _ in range(3)]
            for tenant in ("acme", "small", "other")
        }
        assert posted == {"acme": [202, 202, 202], "small": [202, 429, 429], "other": [202, 202, 429]}

    def test_what_is_left_unsaid_is_as_usual(self, start_gateway: StartGateway) -> None:
        gateway = start_gateway(
            auth="required", quota_submits_per_minute=1, tenant_quotas={"acme": {"unfinished": 9}}
        )
        acme = CallerWithKey(gateway, "acme")
        assert [acme.post().status_code for _ in range(2)] == [202, 429]

    def test_where_no_keys_are_asked_for_there_are_none(self, start_gateway: StartGateway) -> None:
        gateway = start_gateway(quota_submits_per_minute=1, quota_unfinished=1, quota_stored_bytes=1)
        assert [gateway.post(MP4).status_code for _ in range(3)] == [202, 202, 202]

    def test_who_needs_a_key_though_others_do_not_has_them(self, start_gateway: StartGateway) -> None:
        gateway = start_gateway(auth="auto", quota_unfinished=1)
        acme = CallerWithKey(gateway, "acme")
        posted = [acme.post(Host="gateway.example").status_code for _ in range(2)]
        assert (posted, [gateway.post(MP4).status_code for _ in range(2)]) == ([202, 429], [202, 202])

    def test_they_are_generous(self) -> None:
        quota = GatewaySettings().usual_quota
        assert quota.submits_per_minute >= 60
        assert 0 < quota.unfinished < GatewaySettings().max_queue  # one tenant alone can't fill the queue
        assert quota.stored_bytes >= 10 * GatewaySettings().max_upload_bytes
