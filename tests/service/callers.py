"""Callers of a gateway that asks for keys: one HTTP client per key."""

from __future__ import annotations

from collections.abc import Sequence

import httpx

from contract.api_keys import ApiKey, ApiKeys, Scope
from tests.service.conftest import RunningGateway
from tests.service.wire import MP4, post_head


class CallerWithKey:
    """A tenant's client."""

    def __init__(
        self, gateway: RunningGateway, tenant: str, scopes: Sequence[Scope] = (Scope.SUMMARIES,)
    ) -> None:
        self.key: ApiKey
        self.key, self.token = ApiKeys(gateway.parts.redis).create(tenant, scopes=scopes)
        self._gateway = gateway
        self.headers = {"Authorization": f"Bearer {self.token}"}

    def request(self, method: str, path: str, **arguments: object) -> httpx.Response:
        headers = {**self.headers, **arguments.pop("headers", {})}  # type: ignore[dict-item]
        return self._gateway.http.request(method, path, headers=headers, **arguments)  # type: ignore[arg-type]

    def post_head(self, length: int | None) -> bytes:
        """The head of an upload, for a wire of one's own."""
        return post_head(length).replace(b"\r\n", f"\r\nAuthorization: Bearer {self.token}\r\n".encode(), 1)

    def get(self, path: str, **arguments: object) -> httpx.Response:
        return self.request("GET", path, **arguments)

    def delete(self, path: str) -> httpx.Response:
        return self.request("DELETE", path)

    def post(self, content: bytes = MP4, *, key: str | None = None, **headers: str) -> httpx.Response:
        if key is not None:
            headers["Idempotency-Key"] = key
        return self.request("POST", "/summaries", files={"file": ("a.mp4", content)}, headers=headers)
