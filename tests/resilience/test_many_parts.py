"""Two gateways and three workers on one Redis: nothing is done twice, nothing fails while they are replaced."""

from __future__ import annotations

import signal
import threading
import time
import uuid
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import httpx

from contract.errors import Code
from contract.queue import MAX_ATTEMPTS
from contract.records import Status
from tests.resilience.conftest import Parts, post, wait_until
from tests.service.wire import MP4


def test_two_gateways_and_three_workers_share_the_work_without_doing_any_twice(parts: Parts) -> None:
    urls = [parts.gateway()[1] for _ in range(2)]
    for _ in range(3):
        parts.worker("--seconds", "0.2")
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda n: post(urls[n % 2], key=f"k{n // 2}"), range(60)))
    ids = Counter(answer.json()["id"] for answer in answers)
    assert len(ids) == 30, "both gateways answer one key with one summary"
    records = [parts.ended(summary_id) for summary_id in ids]
    assert {(record.status, record.attempts) for record in records} == {(Status.SUCCEEDED, 1)}
    assert len({record.worker for record in records}) == 3
    assert len(parts.files()) == 30


VIDEO_EVERY = 25


class Clients:
    """Clients that keep their connections, and go to the other gateway only where a connection is refused."""

    def __init__(self, urls: list[str]) -> None:
        self._urls = urls
        self._stopping = threading.Event()
        self.answers: Counter[int] = Counter()
        self.failures: list[str] = []
        self._threads = [threading.Thread(target=self._run, args=(number,)) for number in range(4)]
        for thread in self._threads:
            thread.start()

    def _run(self, number: int) -> None:
        with httpx.Client(timeout=30.0, trust_env=False) as http:
            turn = number
            while not self._stopping.is_set():
                turn += 1
                try:
                    answer = self._ask(http, turn)
                except httpx.HTTPError as failure:
                    self.failures.append(repr(failure))
                    continue
                self.answers[answer.status_code] += 1
                if answer.status_code not in (200, 202):
                    self.failures.append(answer.text)
                time.sleep(0.01)

    def _ask(self, http: httpx.Client, turn: int) -> httpx.Response:
        """A listing, or every so often a video."""
        for attempt in range(1000):
            url = f"{self._urls[(turn + attempt) % 2]}/summaries"
            try:
                if turn % VIDEO_EVERY:
                    return http.get(url, params={"limit": 1})
                key = {"Idempotency-Key": uuid.uuid4().hex}
                return http.post(url, files={"file": ("a.mp4", MP4)}, headers=key)
            except httpx.ConnectError:
                time.sleep(0.01)
        raise httpx.ConnectError("both gateways refuse connections")

    def stop(self) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join()


def test_a_rolling_restart_of_gateways_and_workers_fails_no_request(parts: Parts) -> None:
    gateways = [parts.gateway(max_queue=100_000) for _ in range(2)]
    workers = [parts.worker()]
    clients = Clients([url for _, url in gateways])
    try:
        for process, url in gateways:
            before = sum(clients.answers.values())
            wait_until(
                lambda before=before: sum(clients.answers.values()) > before + 20, "clients are served"
            )
            process.send_signal(signal.SIGTERM)
            wait_until(lambda url=url: _shuts_down(url), "/readyz says that it shuts down")
            assert process.wait(timeout=30) == 0
            parts.gateway(port=int(url.rpartition(":")[2]), max_queue=100_000)
        for worker in workers:
            worker.send_signal(signal.SIGTERM)
            assert worker.wait(timeout=30) == 0
            parts.worker()
        served = sum(clients.answers.values())
        wait_until(lambda: sum(clients.answers.values()) > served + 20, "clients are served")
    finally:
        clients.stop()
    assert clients.failures == []
    assert set(clients.answers) == {200, 202}
    wait_until(lambda: parts.store.counts()[Status.SUCCEEDED] == clients.answers[202], "all is done")


def _shuts_down(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz", trust_env=False).json()["gateway"]["ok"] is False
    except httpx.ConnectError:
        return True  # it was quicker than this look


def test_a_poison_job_fails_with_its_kind_of_death_and_takes_no_other_with_it(parts: Parts) -> None:
    _, url = parts.gateway()
    others = [post(url, key=f"k{n}").json()["id"] for n in range(2)]
    poison = post(url, key="poison", name="poison.mp4").json()["id"]
    others += [post(url, key=f"l{n}").json()["id"] for n in range(2)]
    died = 0
    while not parts.store.get(poison).status.finished:
        worker = parts.worker("--poison", "poison.mp4", "--seconds", "0.5")
        wait_until(
            lambda worker=worker: worker.poll() is not None or parts.store.get(poison).status.finished,
            "the worker died of it, or it was given up",
        )
        died += worker.poll() is not None
    error = parts.store.get(poison).error
    assert error is not None
    assert error.code is Code.JOB_LOST
    assert f"{MAX_ATTEMPTS} times, the last one while decoding it" in error.message
    assert died == MAX_ATTEMPTS
    ends = [parts.ended(summary_id) for summary_id in others]
    assert {record.status for record in ends} == {Status.SUCCEEDED}
    assert max(record.attempts for record in ends) <= 3, "from its third attempt on the poison runs alone"


def test_a_failure_that_may_pass_is_tried_again_later(parts: Parts) -> None:
    _, url = parts.gateway()
    parts.worker()
    summary_id = post(url, name="busy.mp4").json()["id"]
    wait_until(lambda: parts.books()["later"] == [summary_id.encode()], "it waits for its next try")
    record = parts.ended(summary_id)
    assert (record.status, record.attempts) == (Status.SUCCEEDED, 2)
    assert record.setback is not None
    wait_until(lambda: not any(parts.books().values()), "the books are closed")


def test_a_worker_that_was_paused_past_its_lease_changes_nothing_and_is_listed_again(parts: Parts) -> None:
    _, url = parts.gateway()
    paused = parts.worker("--seconds", "1")
    summary_id = post(url).json()["id"]
    wait_until(lambda: parts.store.get(summary_id).status is Status.RUNNING, "it runs")
    paused.send_signal(signal.SIGSTOP)
    parts.worker()
    record = parts.ended(summary_id)
    assert record.attempts == 2
    wait_until(lambda: not parts.is_listed(paused), "the paused one is off the list")
    paused.send_signal(signal.SIGCONT)
    wait_until(lambda: parts.is_listed(paused), "it is listed again")
    wait_until(lambda: not any(parts.books().values()), "the books are closed")
    assert parts.store.get(summary_id) == record
