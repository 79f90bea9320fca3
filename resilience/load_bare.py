"""What the gateway is measured beside: Starlette and nothing else, over the same bytes.

`POST /` takes a body as it comes and writes it as durably as the gateway writes a video: to a partial file, synced,
renamed, and the folder synced. It looks at nothing. `GET /{name}` reads one record's bytes from the same Valkey, as the
gateway does on the event loop, and sends them; `GET /threaded/{name}` does so on a thread, as a plain function would.
Started as the gateway is, with the same uvicorn settings.
"""

from __future__ import annotations

import os
import uuid
from pathlib import Path
from typing import BinaryIO

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from contract.keys import record_key
from service.connection import connect, connect_async
from service.video_sink import BLOCK_BYTES

FOLDER, REDIS = "BARE_FOLDER", "BARE_REDIS_URL"


def create_app() -> Starlette:
    """The application, wired by two variables of the environment."""
    folder, redis = Path(os.environ[FOLDER]), connect(os.environ[REDIS])
    on_the_loop = connect_async(os.environ[REDIS])

    async def submit(request: Request) -> Response:
        name = uuid.uuid4().hex
        await _store(request, folder, name)
        return Response(f'{{"id":"{name}"}}', 202, {"Location": f"/{name}"}, media_type="application/json")

    async def poll(request: Request) -> Response:
        record = await on_the_loop.get(record_key(request.path_params["name"]))
        return Response(record or b"", media_type="application/json")

    def poll_on_a_thread(request: Request) -> Response:
        record = redis.get(record_key(request.path_params["name"]))
        return Response(record or b"", media_type="application/json")

    return Starlette(
        routes=[
            Route("/", submit, methods=["POST"]),
            Route("/threaded/{name}", poll_on_a_thread),
            Route("/{name}", poll),
        ]
    )


async def _store(request: Request, folder: Path, name: str) -> None:
    partial = folder / f"{name}.partial"
    block = bytearray()
    with partial.open("xb") as file:
        async for chunk in request.stream():
            block += chunk
            if len(block) >= BLOCK_BYTES:
                await run_in_threadpool(file.write, block)
                block = bytearray()
        await run_in_threadpool(_finish, file, block, partial, folder / name)


def _finish(file: BinaryIO, block: bytes, partial: Path, target: Path) -> None:
    file.write(block)
    file.flush()
    os.fsync(file.fileno())
    partial.rename(target)
    descriptor = os.open(target.parent, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
