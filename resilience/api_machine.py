"""A model of what the API must answer for every summary, and random walks over it.

The walk is the client and the worker: it submits, polls, cancels and deletes over HTTP as two tenants, and takes,
finishes, fails and hands back jobs through the workers' own store. Nothing else runs, so the model is exact.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import httpx
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule
from redis import Redis

from benchmarks.upload import MP4_HEAD
from contract.api_keys import ApiKeys
from contract.errors import Code
from contract.queue import MAX_ATTEMPTS
from contract.records import JobError, Status
from contract.result import SummaryResult
from contract.store import Retention, SummaryStore
from resilience.api_service import Running
from service.examples import RESULT

VIDEOS = tuple(MP4_HEAD + bytes([number]) * 64 for number in range(3))
NEVER = "01K4Z7QHR8V2M6N3P5T9W1XBYC"


@dataclass
class Known:
    """What the model knows of one summary. `status` None: it is gone."""

    id: str
    tenant: int
    status: Status | None = Status.QUEUED
    generation: int = 0
    attempts: int = 0
    cancel_requested: bool = False

    @property
    def finished(self) -> bool:
        return self.status is not None and self.status.finished


class ApiMachine(RuleBasedStateMachine):
    """`service` is set on a subclass by `machine_for`."""

    service: Running
    summaries: Bundle[Known] = Bundle("summaries")

    def __init__(self) -> None:
        super().__init__()
        service = self.service
        self.redis = Redis.from_url(service.redis_url)
        self.store = SummaryStore(self.redis)
        # What it finishes has outlived its retention at once: the walk needs no clock.
        self.expiring = SummaryStore(self.redis, Retention(finished=timedelta(seconds=-1)))
        # Two tenants of its own, so that what earlier walks left is in none of its lists.
        walk = self.redis.incr("visum-test:walks")
        self.clients = [self._client_of(f"walk-{walk}-{who}") for who in "ab"]
        self.known: list[Known] = []
        self.keys: dict[tuple[int, str], tuple[int, Known]] = {}

    def teardown(self) -> None:
        for one in self.known:
            if one.status is not None and not one.finished:
                self.store.request_cancel(one.id)
        for client in self.clients:
            client.close()
        self.redis.close()

    # -- the client's side ----------------------------------------------------------------------

    @rule(target=summaries, tenant=st.integers(0, 1), video=st.sampled_from(VIDEOS))
    def submit(self, tenant: int, video: bytes) -> Known:
        return self._note(self._submit(tenant, video), tenant)

    @rule(
        target=summaries,
        tenant=st.integers(0, 1),
        video=st.integers(0, len(VIDEOS) - 1),
        key=st.sampled_from(["a", "b"]),
    )
    def submit_with_a_key(self, tenant: int, video: int, key: str) -> Known:
        """The same key and video: the same summary while it is there. Another video: 409. Gone: the key is free."""
        answer = self._submit(tenant, VIDEOS[video], key)
        first = self.keys.get((tenant, key))
        if first is None or first[1].status is None:
            made = self._note(answer, tenant)
            self.keys[tenant, key] = (video, made)
            return made
        if first[0] != video:
            _is_problem(answer, 409, Code.REQUEST_IDEMPOTENCY_CONFLICT)
        else:
            assert answer.status_code == 202, answer.text
            assert answer.json()["id"] == first[1].id
        return first[1]

    @rule(one=summaries)
    def poll(self, one: Known) -> None:
        answer = self._get(one)
        if one.status is None:
            _is_problem(answer, 410, Code.SUMMARY_GONE)
            return
        assert answer.status_code == 200, answer.text
        _shows(answer.json(), one)
        again = self._client(one).get(
            f"/summaries/{one.id}", headers={"If-None-Match": answer.headers["ETag"]}
        )
        assert again.status_code == 304 or one.status is Status.QUEUED  # others may move it up in the queue

    @rule(one=summaries)
    def poll_anothers(self, one: Known) -> None:
        """Another tenant's is as unknown as one that never was, and so it is to be deleted."""
        stranger = self.clients[1 - one.tenant]
        _is_problem(stranger.get(f"/summaries/{one.id}"), 404, Code.SUMMARY_NOT_FOUND)
        _is_problem(stranger.delete(f"/summaries/{one.id}"), 404, Code.SUMMARY_NOT_FOUND)

    @rule(one=summaries)
    def poll_without_a_key(self, one: Known) -> None:
        answer = httpx.get(f"{self.service.url}/summaries/{one.id}", trust_env=False)
        _is_problem(answer, 401, Code.AUTH_REQUIRED)

    @rule(summary_id=st.sampled_from([NEVER, "x", "%00", "..%2F..", "0" * 300]))
    def poll_what_never_was(self, summary_id: str) -> None:
        answer = self.clients[0].get(f"/summaries/{summary_id}")
        assert answer.status_code == 404, answer.text

    @rule(one=summaries)
    def delete(self, one: Known) -> None:
        """Cancels what waits, asks what runs to stop, removes what is finished."""
        answer = self._client(one).delete(f"/summaries/{one.id}")
        if one.status is None:
            _is_problem(answer, 410, Code.SUMMARY_GONE)
        elif one.finished:
            assert answer.status_code == 204, answer.text
            one.status = None
        elif one.status is Status.RUNNING:
            one.cancel_requested = True
            assert answer.status_code == 202, answer.text
            _shows(answer.json(), one)
        else:
            one.status = Status.CANCELED
            assert answer.status_code == 200, answer.text
            _shows(answer.json(), one)

    # -- the worker's side ----------------------------------------------------------------------

    @rule(one=summaries)
    def take(self, one: Known) -> None:
        """A worker begins the job, or takes it over: then the one before has lost it."""
        record = self.store.start(one.id, worker="walk")
        if one.status not in (Status.QUEUED, Status.RUNNING):
            assert record is None
        elif one.cancel_requested:
            assert record is None
            one.status = Status.CANCELED
        elif one.attempts >= MAX_ATTEMPTS:
            assert record is None
            one.status = Status.FAILED
        else:
            assert record is not None
            one.status, one.generation = Status.RUNNING, record.generation
            one.attempts += 1

    @rule(one=summaries, late=st.booleans())
    def succeed(self, one: Known, late: bool) -> None:
        """The result is stored; that of a worker that lost the job is not."""
        generation = one.generation - late
        held = one.status is Status.RUNNING and not late and one.generation > 0
        repeated = one.status is Status.SUCCEEDED and not late
        stored = self.store.succeed(one.id, generation, _result(one.id))
        assert stored == (repeated or (held and not one.cancel_requested))
        if held:
            one.status = Status.CANCELED if one.cancel_requested else Status.SUCCEEDED

    @rule(one=summaries)
    def fail(self, one: Known) -> None:
        error = JobError(code=Code.VIDEO_UNDECODABLE, message="The video stream is damaged.")
        held = one.status is Status.RUNNING
        assert self.store.fail(one.id, one.generation, error) == (held or one.status is Status.FAILED)
        if held:
            one.status = Status.FAILED

    @rule(one=summaries)
    def hand_back(self, one: Known) -> None:
        held = one.status is Status.RUNNING
        waits = self.store.requeue(one.id, one.generation)
        assert waits == (held and not one.cancel_requested)
        if held:
            one.status = Status.CANCELED if one.cancel_requested else Status.QUEUED

    @rule(one=consumes(summaries), swept=st.booleans())
    def expire(self, one: Known, swept: bool) -> None:
        """A summary ends and has outlived its retention: it is gone before the sweep as it is after it."""
        if one.status is Status.RUNNING and not one.cancel_requested:
            assert self.expiring.succeed(one.id, one.generation, _result(one.id))
            one.status = None
            if swept:
                self.store.expire_due(100)
            self.poll(one)

    # -- what always holds ----------------------------------------------------------------------

    @invariant()
    def lists_are_the_model(self) -> None:
        """Each tenant's list holds its own unexpired summaries, newest first, over as many pages as it takes."""
        for tenant, client in enumerate(self.clients):
            mine = {
                one.id: one.status for one in self.known if one.tenant == tenant and one.status is not None
            }
            rows = _all_pages(client)
            assert [row["id"] for row in rows] == sorted(mine, reverse=True)
            assert {row["id"]: Status(row["status"]) for row in rows} == mine

    # -- inside ---------------------------------------------------------------------------------

    def _client_of(self, tenant: str) -> httpx.Client:
        token = ApiKeys(self.redis).create(tenant)[1]
        return httpx.Client(
            base_url=self.service.url,
            headers={"Authorization": f"Bearer {token}"},
            timeout=30,
            trust_env=False,
        )

    def _client(self, one: Known) -> httpx.Client:
        return self.clients[one.tenant]

    def _get(self, one: Known) -> httpx.Response:
        return self._client(one).get(f"/summaries/{one.id}")

    def _submit(self, tenant: int, video: bytes, key: str | None = None) -> httpx.Response:
        headers = {} if key is None else {"Idempotency-Key": key}
        return self.clients[tenant].post("/summaries", files={"file": ("a.mp4", video)}, headers=headers)

    def _note(self, answer: httpx.Response, tenant: int) -> Known:
        assert answer.status_code == 202, answer.text
        assert answer.headers["Location"] == f"/summaries/{answer.json()['id']}"
        one = Known(answer.json()["id"], tenant)
        self.known.append(one)
        return one


def machine_for(service: Running) -> type[ApiMachine]:
    """The machine over this service."""
    return type("ApiMachineOnService", (ApiMachine,), {"service": service})


def _shows(body: dict[str, Any], one: Known) -> None:
    assert body["id"] == one.id
    assert body["status"] == one.status
    assert body["cancel_requested"] == one.cancel_requested
    assert body["attempts"] == one.attempts
    assert (body["result"] is not None) == (one.status is Status.SUCCEEDED)
    assert (body["error"] is not None) == (one.status in (Status.FAILED, Status.CANCELED))
    assert (body["position"] is not None) == (one.status is Status.QUEUED)
    assert (body["expires_at"] is not None) == one.finished


def _is_problem(answer: httpx.Response, status: int, code: Code) -> None:
    assert answer.status_code == status, answer.text
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.json()["code"] == code


def _all_pages(client: httpx.Client) -> list[dict[str, Any]]:
    rows, cursor = [], None
    while True:
        page = client.get(
            "/summaries", params={"limit": 3} | ({} if cursor is None else {"cursor": cursor})
        ).json()
        rows += page["summaries"]
        cursor = page["cursor"]
        if cursor is None:
            return rows


def _result(summary_id: str) -> SummaryResult:
    return SummaryResult.model_validate({**RESULT, "id": summary_id})
