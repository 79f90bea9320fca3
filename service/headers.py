"""Headers that every answer has: what browsers and caches must not do with it."""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send

ALWAYS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
)
UNLESS_SAID_OTHERWISE = (
    (b"cache-control", b"no-store"),
    # An answer is data: whatever a browser takes it for, nothing in it runs, loads or is framed.
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
)


class SecurityHeadersMiddleware:
    """Adds them. A route that needs another cache or content policy sets its own."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def add(message: Message) -> None:
            if message["type"] == "http.response.start":
                said = message.get("headers", ())
                names = {name for name, _ in said}
                left = (header for header in UNLESS_SAID_OTHERWISE if header[0] not in names)
                message["headers"] = [*said, *ALWAYS, *left]
            await send(message)

        await self._app(scope, receive, add)
