"""The HTTP client of the service: submit a video, follow it, take its record. Knows nothing of terminals."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import httpx

from visum.errors import CliError, ServiceAway, ServiceError, UsageError

FINISHED = frozenset({"succeeded", "failed", "canceled"})
SHORTEST_POLL_S, LONGEST_POLL_S, USUAL_POLL_S = 0.1, 5.0, 0.5
OUTAGE_S = 60.0
"""How long the client goes on asking for a record that it cannot get before it gives up."""

Record = dict[str, Any]
OnBytes = Callable[[int], None]


@dataclass(frozen=True)
class Options:
    """What may be said of a video beside its bytes; None leaves it to the service."""

    domain: str = "auto"
    instructions: str | None = None
    max_new_tokens: int | None = None
    seed: int | None = None
    adapter_version: int | None = None

    def fields(self) -> dict[str, str]:
        """The form fields that are set."""
        return {name: str(value) for name, value in vars(self).items() if value is not None}


class Client:
    """One gateway. Use as a context manager."""

    def __init__(self, url: str, api_key: str | None = None) -> None:
        self.url = url
        # Uploads take as long as they take; a gateway that sends nothing for a minute is away.
        timeout = httpx.Timeout(60.0, connect=10.0)
        headers = {} if api_key is None else {"Authorization": f"Bearer {api_key}"}
        self._http = httpx.Client(base_url=url, timeout=timeout, headers=headers)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()

    def submit(self, path: Path, options: Options, on_bytes: OnBytes = lambda count: None) -> Record:
        """Upload one file and queue it. Returns `{id, status, links}`.

        Raises:
            UsageError: the file cannot be read.
            ServiceError, ServiceAway: the gateway refused it, or is not there.
        """
        try:
            video = path.open("rb")
        except OSError as error:
            raise UsageError(f"{path} cannot be read: {error.strerror}", "Name a video file.") from error
        with video, self._talking():
            answer = self._http.post(
                "/summaries",
                data=options.fields(),
                files={"file": (path.name, _Counted(video, on_bytes))},
                headers={"Idempotency-Key": uuid.uuid4().hex},
            )
        return self._checked(answer).json()

    def record(self, summary_id: str) -> tuple[Record, float]:
        """The record as it is now, and the seconds to wait before asking again."""
        with self._talking():
            answer = self._checked(self._http.get(f"/summaries/{summary_id}"))
        return answer.json(), _retry_after(answer)

    def cancel(self, summary_id: str) -> None:
        """Cancel queued or running work."""
        with self._talking():
            self._checked(self._http.delete(f"/summaries/{summary_id}"))

    def ready(self) -> bool:
        """Whether the service can take and do work now."""
        try:
            return self._http.get("/readyz", timeout=5.0).status_code == httpx.codes.OK
        except httpx.HTTPError:
            return False

    def follow(self, summary_id: str) -> Iterator[Record]:
        """Yield the record whenever it was asked for, the finished one last. Rides out short outages."""
        away_since: float | None = None
        while True:
            try:
                record, pause = self.record(summary_id)
                away_since = None
            except CliError as error:
                if not _may_pass(error):
                    raise
                away_since = away_since or time.monotonic()
                if time.monotonic() - away_since > OUTAGE_S:
                    raise
                time.sleep(USUAL_POLL_S)
                continue
            yield record
            if record["status"] in FINISHED:
                return
            time.sleep(pause)

    @contextmanager
    def _talking(self) -> Iterator[None]:
        try:
            yield
        except httpx.ConnectError as error:
            raise ServiceAway(
                f"Nothing answers at {self.url}",
                "Start the service with `visum serve`, or name another with --url.",
            ) from error
        except httpx.TimeoutException as error:
            raise ServiceAway(
                f"{self.url} does not answer in time", "Look at its log, then try again."
            ) from error
        except httpx.InvalidURL as error:
            raise UsageError(
                f"{self.url} is no address: {error}", "Try --url http://127.0.0.1:8000."
            ) from error
        except httpx.UnsupportedProtocol as error:
            raise UsageError(f"{self.url} is no http address", "Try --url http://127.0.0.1:8000.") from error
        except httpx.TransportError as error:
            raise ServiceAway(f"The connection to {self.url} broke: {error}", "Try again.") from error

    def _checked(self, answer: httpx.Response) -> httpx.Response:
        if answer.is_success:
            return answer
        problem = _problem(answer)
        code = str(problem.get("code", f"http.{answer.status_code}"))
        detail = str(problem.get("detail") or problem.get("title") or answer.reason_phrase)
        raise ServiceError(
            f"{detail.rstrip('.')} [{code}]", code=code, status=answer.status_code, hint=_next_step(answer)
        )


class _Counted:
    """A file that reports every read, for the upload's progress bar."""

    def __init__(self, file: IO[bytes], on_bytes: OnBytes) -> None:
        self._file = file
        self._on_bytes = on_bytes
        self.fileno = file.fileno
        self.seek = file.seek
        self.tell = file.tell

    def read(self, size: int = -1) -> bytes:
        chunk = self._file.read(size)
        self._on_bytes(len(chunk))
        return chunk


def _problem(answer: httpx.Response) -> Record:
    try:
        body = answer.json()
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}


def _retry_after(answer: httpx.Response) -> float:
    try:
        seconds = float(answer.headers["Retry-After"])
    except (KeyError, ValueError):
        seconds = USUAL_POLL_S
    return min(max(seconds, SHORTEST_POLL_S), LONGEST_POLL_S)


def _next_step(answer: httpx.Response) -> str:
    wait = answer.headers.get("Retry-After")
    match answer.status_code:
        case 401:
            return "Set VISUM_API_KEY to a key; who runs the service makes one with `visum keys create`."
        case 413:
            return "Send a smaller file, or raise VISUM_MAX_UPLOAD_BYTES on the gateway."
        case 429 | 503 if wait:
            return f"Try again in {wait} s."
        case 507:
            return "The service's disk is full: tell who runs it."
        case _:
            return ""


def _may_pass(error: CliError) -> bool:
    return isinstance(error, ServiceAway) or (
        isinstance(error, ServiceError) and error.status in (429, 502, 503, 504)
    )
