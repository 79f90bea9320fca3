"""The clients of a kill test: they submit until they are answered, and remember every answer that they saw."""

from __future__ import annotations

import json
import random
import threading
import time
import uuid
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx

FINISHED = frozenset({"succeeded", "failed", "canceled"})
CLIENTS = 4
MOST_UNFINISHED = 10  # so many that the workers have something to lose
RETRY_S = 0.3
REPEATED_SHARE = 0.25
GIVE_UP_S = 180.0

Answer = dict[str, Any]


class Traffic:
    """Submits videos to any of the gateways, each with a key of its own, and polls what was accepted.

    A submission that breaks off or is refused for a fault (503, 507) is made again with the same key, at the other
    gateway: it counts as accepted once a 202 has come back.
    """

    def __init__(self, urls: Sequence[str], videos: Sequence[Path], seed: int, every_s: float) -> None:
        self._urls, self._videos = list(urls), list(videos)
        self._draw = random.Random(seed)
        self._every_s = every_s
        self._http = httpx.Client(timeout=httpx.Timeout(15.0, connect=3.0), trust_env=False)
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._threads = [threading.Thread(target=self._submit_on, daemon=True) for _ in range(CLIENTS)]
        self._watcher = threading.Thread(target=self._watch, daemon=True)
        self._next_at = time.monotonic()
        self.accepted: dict[str, float] = {}
        self.ended: dict[str, Answer] = {}
        self.finishes: list[float] = []
        self.problems: list[str] = []
        self.counts: Counter[str] = Counter()

    def start(self) -> None:
        for thread in (*self._threads, self._watcher):
            thread.start()

    def stop(self) -> None:
        """No more submissions; polling goes on."""
        self._stopping.set()
        for thread in self._threads:
            thread.join()

    def close(self) -> None:
        self._http.close()

    @property
    def unfinished(self) -> list[str]:
        with self._lock:
            return [summary_id for summary_id in self.accepted if summary_id not in self.ended]

    def submit(self) -> None:
        """One video, until it is accepted."""
        with self._lock:
            video, first = self._draw.choice(self._videos), self._draw.randrange(len(self._urls))
            options = {"domain": self._draw.choice(["auto", "general"]), "max_new_tokens": "48"}
        key, content = uuid.uuid4().hex, video.read_bytes()
        self.insist(key, content, options, first)

    def insist(self, key: str, content: bytes, options: dict[str, str], first: int = 0) -> None:
        """Post until there is a 202, at one gateway and the next in turn. Some do not believe the first: they post
        once more with the same key."""
        known: str | None = None
        give_up = time.monotonic() + GIVE_UP_S
        attempt = first
        while time.monotonic() < give_up:
            url = self._urls[attempt % len(self._urls)]
            attempt += 1
            try:
                answer = self._http.post(
                    f"{url}/summaries",
                    data=options,
                    files={"file": ("clip.mp4", content)},
                    headers={"Idempotency-Key": key},
                )
            except httpx.HTTPError as broken:
                self._count(f"submission broke off: {type(broken).__name__}")
                time.sleep(RETRY_S)
                continue
            if answer.status_code == httpx.codes.ACCEPTED:
                summary_id = answer.json()["id"]
                with self._lock:
                    self.accepted.setdefault(summary_id, time.monotonic())
                    repeated = known is None and self._draw.random() < REPEATED_SHARE
                if known not in (None, summary_id):
                    self._note(f"{known} was asked for again with its key, and {summary_id} was made")
                if not repeated:
                    return
                known = summary_id
                continue
            if answer.status_code not in (503, 507):
                self._note(f"POST: {answer.status_code} {answer.text[:200]}")
                return
            self._count(f"refused: {answer.json()['code']}")
            time.sleep(RETRY_S)
        self._note(f"no gateway took a video within {GIVE_UP_S:g} s")

    def look_again(self) -> None:
        """Every accepted summary once more: it must be there, and be what it was."""
        with ThreadPoolExecutor(CLIENTS) as pool:
            list(pool.map(self._look, list(self.accepted)))

    # -- inside ---------------------------------------------------------------------------------

    def _submit_on(self) -> None:
        while not self._stopping.is_set():
            if len(self.unfinished) >= MOST_UNFINISHED or not self._my_turn():
                self._stopping.wait(0.1)
                continue
            self.submit()

    def _my_turn(self) -> bool:
        """One submission every so often, however many clients there are."""
        with self._lock:
            now = time.monotonic()
            if now < self._next_at:
                return False
            self._next_at = max(self._next_at + self._every_s, now - 5 * self._every_s)
            return True

    def _watch(self) -> None:
        """Poll what is unfinished all the time, and one of the finished ones each round."""
        while not self._http.is_closed:
            unfinished = self.unfinished
            for summary_id in unfinished:
                self._look(summary_id)
            with self._lock:
                done = list(self.ended)
            if done:
                self._look(done[time.monotonic_ns() % len(done)])
            time.sleep(0.05)

    def _look(self, summary_id: str) -> None:
        for url in self._urls:
            try:
                answer = self._http.get(f"{url}/summaries/{summary_id}", timeout=5.0)
            except (httpx.HTTPError, RuntimeError):  # RuntimeError: closed under the watcher
                continue
            if answer.status_code == httpx.codes.OK:
                self._saw(summary_id, answer.json())
                return
            if answer.status_code != httpx.codes.SERVICE_UNAVAILABLE:
                self._note(f"GET {summary_id}: {answer.status_code} {answer.text[:200]}")
                return

    def _saw(self, summary_id: str, answer: Answer) -> None:
        with self._lock:
            before = self.ended.get(summary_id)
            if before is None and answer["status"] in FINISHED:
                self.ended[summary_id] = answer
                self.finishes.append(time.monotonic())
            elif before is not None and before != answer:
                self.problems.append(f"{summary_id} changed after its end: {_difference(before, answer)}")

    def _count(self, what: str) -> None:
        with self._lock:
            self.counts[what] += 1

    def _note(self, problem: str) -> None:
        with self._lock:
            self.problems.append(problem)


def _difference(before: Answer, after: Answer) -> str:
    keys = [key for key in {*before, *after} if before.get(key) != after.get(key)]
    return json.dumps({key: [before.get(key), after.get(key)] for key in sorted(keys)})[:500]
