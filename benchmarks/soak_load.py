"""The traffic of a soak: bursts of uploads, bad files, cancels at any moment, and new versions of the adapters.

Every accepted summary is booked with what has to become of it, and audited at the end.
"""

from __future__ import annotations

import heapq
import random
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from contract.folders import store_folder
from model_store.backbone_ref import adapter_roots
from model_store.publish import publish
from model_store.registry import AdapterRegistry

FEWEST_WAITING, MOST_WAITING = 20, 50  # the gateway takes 100
UPLOADS_AT_ONCE = 4
BAD_SHARE, CANCEL_SHARE, CANCEL_AFTER_S = 0.06, 0.15, 3.0
HIT_RUNNING_SHARE = 0.15  # of the rounds: cancel one that runs just now
WORDS = (None, None, "Keep it short.", "What moves, and where to?", "Count the vehicles. " * 8)
FINISHED = frozenset({"succeeded", "failed", "canceled"})

Record = dict[str, Any]


@dataclass(frozen=True)
class Video:
    """A file to upload, and the code of the failure that it must end in. `refused`: by the gateway already."""

    path: Path
    code: str | None = None
    refused: bool = False


@dataclass
class Booking:
    """One accepted summary: the code that it has to fail with, and what its DELETE answered, if there was one.

    A sampled answer may end before its first word, about once in ten thousand; that is told as a failure.
    """

    code: str | None
    deletion: str | None = None  # canceled or deleted
    sampled: bool = False

    def problem(self, status: int, record: Record) -> str | None:
        """What is wrong with how it ended, given the answer to the GET of its record."""
        if self.deletion == "deleted":
            return None if status == 410 else f"deleted, and the answer is {status}"
        if status != 200:
            return f"the answer is {status}"
        found = (record["status"], (record["error"] or {}).get("code"))
        allowed = {("succeeded", None) if self.code is None else ("failed", self.code)}
        if self.sampled:
            allowed.add(("failed", "model.empty_answer"))
        if self.deletion == "canceled":
            allowed = {("canceled", "job.canceled"), *(allowed if self.code is not None else ())}
        return None if found in allowed else f"ended as {found}, allowed are {sorted(allowed, key=str)}"


class Load:
    """Traffic against one service. Deterministic in what it draws, not in when the service is ready for it."""

    def __init__(self, url: str, data: Path, videos: Sequence[Video], domains: Sequence[str], seed: int = 0):
        self._http = httpx.Client(base_url=url, timeout=120.0, trust_env=False)
        self._good = [video for video in videos if video.code is None]
        self._bad = [video for video in videos if video.code is not None]
        self._domains = list(domains)
        self._store = store_folder(data)
        self._draw = random.Random(seed)
        self._cancels: list[tuple[float, str]] = []
        self.bookings: dict[str, Booking] = {}
        self.counts: Counter[str] = Counter()
        self.problems: list[str] = []
        self.depths: list[int] = []
        """How many summaries waited, once a round."""

    def close(self) -> None:
        self._http.close()

    def each_once(self) -> None:
        """Every good clip in its own words, at once."""
        self._burst([(video, {}) for video in self._good])

    def run(self, seconds: float, publish_every_s: float) -> None:
        """Keep the service busy for so long."""
        ends, publishes = time.monotonic() + seconds, time.monotonic() + publish_every_s
        self._burst(self._drawn(FEWEST_WAITING + 10))
        while (now := time.monotonic()) < ends:
            try:
                self._round(now)
                if now >= publishes:
                    publishes += publish_every_s
                    self._publish()
            except httpx.HTTPError as error:
                self.problems.append(f"the gateway broke off: {error!r}")
            time.sleep(self._draw.uniform(0.05, 0.6))

    def _round(self, now: float) -> None:
        waiting = len(self._listed("queued"))
        self.depths.append(waiting)
        if waiting < FEWEST_WAITING:
            self._burst(self._drawn(self._draw.randint(8, 14)))
        elif waiting < MOST_WAITING and self._draw.random() < 0.5:
            self._burst(self._drawn(self._draw.randint(1, 8)))
        self._cancel_due(now)
        if self._draw.random() < HIT_RUNNING_SHARE:
            self._cancel_running()

    def unfinished(self) -> int:
        """Summaries that wait or run."""
        return sum(len(self._listed(status)) for status in ("queued", "running"))

    def audit(self) -> Counter[str]:
        """How every accepted summary ended; what is wrong goes to `problems`."""
        with ThreadPoolExecutor(UPLOADS_AT_ONCE) as pool:
            answers = pool.map(lambda summary_id: self._http.get(f"/summaries/{summary_id}"), self.bookings)
            ends: Counter[str] = Counter()
            for (summary_id, booking), answer in zip(self.bookings.items(), answers, strict=True):
                record = answer.json()
                problem = booking.problem(answer.status_code, record)
                if problem is not None:
                    self.problems.append(f"{summary_id} {problem}")
                ends["deleted" if booking.deletion == "deleted" else str(record.get("status"))] += 1
                ends["by a published version"] += _version(record) > 1
                ends["an empty answer"] += (record.get("error") or {}).get("code") == "model.empty_answer"
        return ends

    # -- one kind of traffic each ---------------------------------------------------------------

    def _drawn(self, count: int) -> list[tuple[Video, dict[str, str]]]:
        return [(self._video(), self._options()) for _ in range(count)]

    def _video(self) -> Video:
        return self._draw.choice(self._bad if self._draw.random() < BAD_SHARE else self._good)

    def _options(self) -> dict[str, str]:
        draw = self._draw
        domain = draw.choice(["auto", "auto", "general", *self._domains])
        options: dict[str, object] = {
            "domain": domain,
            "instructions": draw.choice(WORDS),
            "max_new_tokens": draw.choice([None, draw.randint(4, 64)]),
            "seed": draw.choice([None, draw.randrange(1000)]),
            "adapter_version": 1 if domain in self._domains and draw.random() < 0.15 else None,
        }
        return {name: str(value) for name, value in options.items() if value is not None}

    def _burst(self, uploads: Sequence[tuple[Video, dict[str, str]]]) -> None:
        with ThreadPoolExecutor(UPLOADS_AT_ONCE) as pool:
            posted = [(video, options, pool.submit(self._post, video, options)) for video, options in uploads]
        for video, options, answer in posted:
            try:
                self._book(video, answer.result(), sampled="seed" in options)
            except httpx.HTTPError as error:  # the others of the burst were answered, and are accounted for
                self.problems.append(f"POST {video.path.name}: {error!r}")

    def _post(self, video: Video, options: dict[str, str]) -> httpx.Response:
        with video.path.open("rb") as file:
            return self._http.post("/summaries", data=options, files={"file": (video.path.name, file)})

    def _book(self, video: Video, answer: httpx.Response, sampled: bool) -> None:
        if answer.status_code == 202 and not video.refused:
            self.counts["accepted"] += 1
            summary_id = answer.json()["id"]
            self.bookings[summary_id] = Booking(video.code, sampled=sampled)
            if self._draw.random() < CANCEL_SHARE:
                due = time.monotonic() + self._draw.expovariate(1 / CANCEL_AFTER_S)
                heapq.heappush(self._cancels, (due, summary_id))
        elif answer.status_code == 503:
            self.counts["queue full"] += 1
        elif video.refused and answer.status_code == 415 and answer.json()["code"] == video.code:
            self.counts["refused"] += 1
        else:
            self.problems.append(f"POST {video.path.name}: {answer.status_code} {answer.text[:200]}")

    def _cancel_due(self, now: float) -> None:
        while self._cancels and self._cancels[0][0] <= now:
            self._delete(heapq.heappop(self._cancels)[1])

    def _cancel_running(self) -> None:
        running = [record["id"] for record in self._listed("running") if record["id"] in self.bookings]
        if running:
            self._delete(self._draw.choice(running))

    def _delete(self, summary_id: str) -> None:
        """Cancel it, or delete it where it is finished already: the answer says which of the two it was."""
        booking = self.bookings[summary_id]
        answer = self._http.delete(f"/summaries/{summary_id}")
        if answer.status_code == 204:
            booking.deletion = "deleted"
            self.counts["deleted"] += 1
        elif answer.status_code == 202 or (
            answer.status_code == 200 and answer.json()["status"] == "canceled"
        ):
            booking.deletion = "canceled"
            self.counts["canceled running" if answer.status_code == 202 else "canceled waiting"] += 1
        elif not (booking.deletion == "deleted" and answer.status_code == 410):
            self.problems.append(f"DELETE {summary_id}: {answer.status_code} {answer.text[:200]}")

    def _publish(self) -> None:
        """A shipped adapter again, as its domain's next version."""
        roots = adapter_roots(self._store)
        domain = self._domains[self.counts["published"] % len(self._domains)]
        publish(AdapterRegistry(roots), roots[-1], roots[0] / domain / "1")
        self.counts["published"] += 1

    def _listed(self, status: str) -> list[Record]:
        answer = self._http.get("/summaries", params={"status": status, "limit": 100})
        return answer.raise_for_status().json()["summaries"]


def _version(record: Record) -> int:
    """Of the adapter that answered; 0 without one."""
    return ((record.get("result") or {}).get("model") or {}).get("adapter_version") or 0
