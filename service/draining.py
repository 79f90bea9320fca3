"""What a gateway does that was told to end: it still answers, and tells everybody to go elsewhere."""

from __future__ import annotations

from threading import Event

from starlette.types import ASGIApp, Message, Receive, Scope, Send


class CloseWhileDraining:
    """Closes every connection after its answer once `draining` is set.

    A client that keeps its connection would otherwise send its next request just when the gateway closes it.
    """

    def __init__(self, app: ASGIApp, draining: Event) -> None:
        self._app, self._draining = app, draining

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def close(message: Message) -> None:
            if message["type"] == "http.response.start" and self._draining.is_set():
                message["headers"] = [*message.get("headers", []), (b"connection", b"close")]
            await send(message)

        await self._app(scope, receive, close if scope["type"] == "http" else send)
