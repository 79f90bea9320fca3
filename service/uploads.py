"""`POST /summaries` as it comes off the wire: form fields and one video, at constant memory."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import PurePath

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from contract.errors import Code
from service.fields import MAX_FIELD_BYTES, OptionFields, Options
from service.multipart import FormStream, PartBegins, PartData, PartEnds, boundary_of
from service.problems import ApiError, InvalidField
from service.upload_room import FORM_OVERHEAD_BYTES
from service.video_sink import StoredVideo, VideoSink

MAX_FILENAME = 255
_LENGTH = re.compile(r"[0-9]{1,19}")
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


@dataclass(frozen=True, slots=True)
class UploadLimits:
    """Bounds of one upload. `idle_s` bounds its silences, `total_s` all of it.

    `bytes_per_s` is what has to come in at least, on an average from the beginning, once `idle_s` are over.
    """

    max_bytes: int
    idle_s: float
    total_s: float
    bytes_per_s: int


@dataclass(frozen=True, slots=True)
class Upload:
    """A request as it was sent; its video is durable."""

    filename: str
    video: StoredVideo
    options: Options


class UploadBody:
    """A request's body in chunks, bounded in size, in silence, in time and in slowness.

    `complete` once it was read to its end.
    """

    def __init__(self, request: Request, limits: UploadLimits) -> None:
        self._request, self._limits = request, limits
        self.complete = False

    @property
    def announced_bytes(self) -> int:
        """The length that the request's head names; 0 where it names none."""
        header = self._request.headers.get("content-length", "")
        return int(header) if _LENGTH.fullmatch(header) else 0

    def check_length(self) -> None:
        """Refuse what announces itself as too large before reading a byte of it. Raises ApiError (413)."""
        if self.announced_bytes > self._limits.max_bytes + FORM_OVERHEAD_BYTES:
            raise self._too_large()

    async def chunks(self) -> AsyncIterator[bytes]:
        """Raises ApiError (408, 413), ClientDisconnect."""
        stream = self._request.stream()
        clock = asyncio.get_running_loop().time
        began, received = clock(), 0
        while True:
            ends_at = began + self._longest_s(received)
            silent_at = clock() + self._limits.idle_s
            if clock() >= ends_at:
                raise self._too_slow(received)
            try:
                async with asyncio.timeout_at(min(ends_at, silent_at)):
                    chunk = await anext(stream, None)
            except TimeoutError as error:
                if clock() >= silent_at:
                    raise ApiError(Code.REQUEST_TIMEOUT, "The upload stopped coming in.") from error
                raise self._too_slow(received) from error
            if chunk is None:
                self.complete = True
                return
            received += len(chunk)
            if received > self._limits.max_bytes + FORM_OVERHEAD_BYTES:
                raise self._too_large()
            yield chunk

    def _longest_s(self, received: int) -> float:
        """How long an upload may take of which so much is there: until its average falls below the least one."""
        limits = self._limits
        if not limits.bytes_per_s:
            return limits.total_s
        return min(limits.total_s, max(limits.idle_s, received / limits.bytes_per_s))

    def _too_slow(self, received: int) -> ApiError:
        after = f"after {self._longest_s(received):g} seconds"
        return ApiError(Code.REQUEST_TIMEOUT, f"The upload was not complete {after}; {received} bytes were.")

    def _too_large(self) -> ApiError:
        return ApiError(
            Code.REQUEST_TOO_LARGE, f"Videos of up to {self._limits.max_bytes} bytes are taken; this is more."
        )


async def receive(
    body: UploadBody,
    content_type: str | None,
    fields: OptionFields,
    sink: VideoSink,
    on_bytes: Callable[[int], None],
) -> Callable[[], Upload]:
    """Read the whole form. What is returned makes the video durable; it waits for the disk: call it in a thread.

    Raises:
        ApiError: the request is refused (400, 408, 413, 415, 422). StorageFull: no room. Both may raise them.
        ClientDisconnect: the client went away. Whatever is raised, leave `sink` and nothing stays.
    """
    form = _FormReader(fields, sink, on_bytes)
    stream = FormStream(boundary_of(content_type))
    async for chunk in body.chunks():
        for event in stream.feed(chunk):
            await form.handle(event)
    stream.finish()

    def finish() -> Upload:
        options = fields.finish()
        return Upload(form.filename, sink.commit(), options)

    return finish


class _FormReader:
    """Sends a form's events where they belong: the file to the sink, text to the fields."""

    def __init__(self, fields: OptionFields, sink: VideoSink, on_bytes: Callable[[int], None]) -> None:
        self._fields, self._sink, self._on_bytes = fields, sink, on_bytes
        self._name = ""
        self._text = bytearray()
        self.filename = ""

    async def handle(self, event: PartBegins | PartData | PartEnds) -> None:
        match event:
            case PartBegins(name, filename):
                self._fields.begin(name)
                self._name = name
                self._text.clear()
                if name == "file":
                    self.filename = display_name(filename)
            case PartData(data) if self._name == "file":
                self._on_bytes(len(data))
                await self._sink.take(data)
            case PartData(data):
                self._text += data
                if len(self._text) > MAX_FIELD_BYTES:
                    raise InvalidField(self._name, f"longer than {MAX_FIELD_BYTES} bytes")
            case PartEnds() if self._name == "file":
                await self._sink.end()
            case PartEnds():
                # In a thread: a domain is looked up in Redis and on disk.
                await run_in_threadpool(self._fields.put, self._name, bytes(self._text))


def display_name(filename: str | None) -> str:
    """A client's filename, fit to be shown: no folders, nothing unprintable. It never names a file here."""
    last = PurePath((filename or "").replace("\\", "/")).name
    return _UNPRINTABLE.sub("", last)[:MAX_FILENAME] or "video"
