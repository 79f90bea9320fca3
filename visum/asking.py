"""Many videos through a running service, several at a time."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from visum.client import Client, Options, Record
from visum.data import progress_bar
from visum.errors import ServiceError

_IN_FLIGHT = 16
_THE_VIDEOS_FAULT = frozenset({400, 413, 415, 422})


@dataclass(frozen=True)
class Asked:
    """What became of one video: ``summary`` and the domain ``selected``, or else ``code`` and ``message``."""

    path: Path
    summary: str | None = None
    selected: str = ""
    code: str = ""
    message: str = ""


def ask(client: Client, videos: Sequence[Path], domain: str, label: str) -> list[Asked]:
    """Posts every file and waits for the answers, in the files' order.

    Raises:
        ServiceError, ServiceAway: the service refuses for a reason that is not the video's, or is not there.
    """

    def one(path: Path) -> Asked:
        try:
            submitted = client.submit(path, Options(domain=domain))
        except ServiceError as error:
            if error.status not in _THE_VIDEOS_FAULT:
                raise
            return Asked(path, code=error.code, message=error.message)
        record = _last(client.follow(submitted["id"]))
        if record["status"] == "succeeded":
            result = record["result"]
            return Asked(path, result["summary"], result["domain"]["selected"])
        error = record["error"] or {"code": record["status"], "message": "The summary was canceled."}
        return Asked(path, code=error["code"], message=error["message"])

    with ThreadPoolExecutor(_IN_FLIGHT) as pool, progress_bar() as bar:
        return list(bar.track(pool.map(one, videos), total=len(videos), description=label))


def _last(records: Iterable[Record]) -> Record:
    *_, record = records
    return record
