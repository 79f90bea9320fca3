"""Who asks, and whether they may: API keys, sent as `Authorization: Bearer vsm_…`."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer, SecurityScopes
from redis.exceptions import RedisError
from starlette.concurrency import run_in_threadpool
from structlog.contextvars import bind_contextvars

from contract.api_keys import ApiKey, ApiKeys, Scope
from contract.errors import Code
from contract.tenants import DEFAULT_TENANT
from service.origin import from_elsewhere
from service.problems import ApiError

REMEMBER_S = 1.0  # how long a key is believed without asking Redis again: a revoked one lives on so long
CHALLENGE = 'Bearer realm="visum"'

_bearer = HTTPBearer(
    scheme_name="API key",
    bearerFormat="vsm_<key id>_<secret>",
    description="A key of `visum keys create`. Its scopes say what it may do; its tenant, whose summaries it sees.",
    auto_error=False,
)


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks: a tenant, by one of its keys."""

    tenant: str
    scopes: frozenset[Scope]
    key_id: str | None = None


ANYBODY = Caller(DEFAULT_TENANT, frozenset(Scope))
"""Where no keys are asked for there is one tenant, and whoever asks is it."""


class Access:
    """Tells callers by their tokens.

    `required` False: nobody is asked for one, except, unless `anybody`, who comes from elsewhere than this machine.
    """

    def __init__(self, keys: ApiKeys, *, required: bool, anybody: bool) -> None:
        self._keys = keys
        self._required, self._anybody = required, anybody
        self._known: dict[str, tuple[float, ApiKey]] = {}  # by token; only what Redis has confirmed gets in

    async def caller(self, request: Request, token: str | None) -> Caller:
        """Who sends this request, with this token.

        Raises:
            ApiError: 401, there is no token or it is not good. RedisError: nobody knows.
        """
        if not self._required and (self._anybody or not from_elsewhere(request)):
            return ANYBODY
        if token is None:
            raise ApiError(
                Code.AUTH_REQUIRED,
                "Send an API key: Authorization: Bearer vsm_…",
                headers={"WWW-Authenticate": CHALLENGE},
            )
        key = self._remembered(token) or await run_in_threadpool(self._keys.find, token)
        if key is None:
            raise ApiError(
                Code.AUTH_INVALID,
                "This API key is not known, or was revoked.",
                headers={"WWW-Authenticate": f'{CHALLENGE}, error="invalid_token"'},
            )
        if token not in self._known:
            self._remember(token, key)
        return Caller(key.tenant, frozenset(key.scopes), key.id)

    def _remembered(self, token: str) -> ApiKey | None:
        until, key = self._known.get(token, (0.0, None))
        if time.monotonic() < until:
            return key
        self._known.pop(token, None)
        return None

    def _remember(self, token: str, key: ApiKey) -> None:
        now = time.monotonic()
        self._known = {known: (until, of) for known, (until, of) in self._known.items() if now < until}
        self._known[token] = (now + REMEMBER_S, key)


async def caller_of(
    request: Request,
    needed: SecurityScopes,
    credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],
) -> Caller:
    """Who asks, for a route: `Security(caller_of, scopes=[…])`. Raises ApiError (401, 403)."""
    access: Access = request.app.state.gateway.access
    caller = await access.caller(request, None if credentials is None else credentials.credentials)
    bind_contextvars(tenant=caller.tenant)
    for scope in needed.scopes:
        if Scope(scope) not in caller.scopes:
            raise ApiError(
                Code.AUTH_FORBIDDEN,
                f"This API key lacks the scope '{scope}'.",
                headers={"WWW-Authenticate": f'{CHALLENGE}, error="insufficient_scope", scope="{scope}"'},
            )
    return caller


async def caller_if_known(request: Request) -> Caller | None:
    """Who asks, for a route that is open to anybody: a key that is bad, or not to be checked, is as good as none."""
    access: Access = request.app.state.gateway.access
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    try:
        return await access.caller(request, token.strip() if scheme.lower() == "bearer" else None)
    except (ApiError, RedisError):
        return None
