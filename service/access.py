"""Who asks, and whether they may: API keys, sent as `Authorization: Bearer vsm_…`."""

from __future__ import annotations

import math
import time
from contextlib import suppress
from dataclasses import dataclass

from anyio import CapacityLimiter, to_thread
from fastapi import Request
from fastapi.security import HTTPBearer, SecurityScopes
from redis.exceptions import RedisError
from starlette.concurrency import run_in_threadpool
from structlog.contextvars import bind_contextvars

from contract.api_keys import ApiKey, ApiKeys, Scope
from contract.errors import Code
from contract.tenants import DEFAULT_TENANT
from service.origin import from_elsewhere
from service.problems import ApiError

REMEMBER_S = 1.0  # how long a key is believed without asking Redis again: a revoked one lives on so long
LATELY_S = 600.0  # how long it is believed where Redis can't be asked, to be told that and no more
_LOOKUPS = 4  # for /readyz at a time
CHALLENGE = 'Bearer realm="visum"'


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

    def __init__(self, keys: ApiKeys, *, probe: ApiKeys, required: bool, anybody: bool) -> None:
        """`probe` holds the same keys, and soon gives up."""
        self._keys, self._probe = keys, probe
        self._probing = CapacityLimiter(_LOOKUPS)
        self._required, self._anybody = required, anybody
        # By token: when Redis confirmed it, and the key; the latest last.
        self._known: dict[str, tuple[float, ApiKey]] = {}

    async def caller(self, request: Request, token: str | None) -> Caller:
        """Who sends this request, with this token.

        Raises:
            ApiError: 401, there is no token or it is not good. RedisError: nobody knows.
        """
        if self._needs_no_key(request):
            return ANYBODY
        if token is None:
            raise ApiError(
                Code.AUTH_REQUIRED,
                "Send an API key: Authorization: Bearer vsm_…",
                headers={"WWW-Authenticate": CHALLENGE},
            )
        key = self._remembered(token, REMEMBER_S)
        if key is None:
            key = await run_in_threadpool(self._keys.find, token)
            self._remember(token, key)
        if key is None:
            raise ApiError(
                Code.AUTH_INVALID,
                "This API key is not known, or was revoked.",
                headers={"WWW-Authenticate": f'{CHALLENGE}, error="invalid_token"'},
            )
        return _caller(key)

    async def caller_if_known(
        self, request: Request, token: str | None, *, redis_answers: bool
    ) -> Caller | None:
        """Who sends it, for a route that is open to anybody: a key that is bad, or can't be checked, is like none.

        Where Redis is away, one that it confirmed lately is believed: its owner is to be told so.
        """
        if self._needs_no_key(request):
            return ANYBODY
        if token is None:
            return None
        if redis_answers and self._remembered(token, REMEMBER_S) is None:
            with suppress(RedisError):
                found = await to_thread.run_sync(self._probe.find, token, limiter=self._probing)
                self._remember(token, found)
        key = self._remembered(token, LATELY_S)
        return None if key is None else _caller(key)

    def _needs_no_key(self, request: Request) -> bool:
        return not self._required and (self._anybody or not from_elsewhere(request))

    def _remembered(self, token: str, seconds: float) -> ApiKey | None:
        confirmed_at, key = self._known.get(token, (-math.inf, None))
        return key if time.monotonic() < confirmed_at + seconds else None

    def _remember(self, token: str, key: ApiKey | None) -> None:
        """What Redis said of a token just now."""
        self._known.pop(token, None)
        now = time.monotonic()
        if key is not None:
            self._known[token] = (now, key)
        while self._known and next(iter(self._known.values()))[0] + LATELY_S <= now:
            del self._known[next(iter(self._known))]


def _caller(key: ApiKey) -> Caller:
    return Caller(key.tenant, frozenset(key.scopes), key.id)


class ApiKeyBearer(HTTPBearer):
    """Who asks, for a route: `Security(caller_of, scopes=[…])`. Scheme and check are one: a dependency costs time."""

    async def __call__(self, request: Request, needed: SecurityScopes) -> Caller:  # type: ignore[override]
        """Raises ApiError (401, 403), RedisError."""
        access: Access = request.app.state.gateway.access
        caller = await access.caller(request, _token(request))
        bind_contextvars(tenant=caller.tenant)
        for scope in needed.scopes:
            if Scope(scope) not in caller.scopes:
                raise ApiError(
                    Code.AUTH_FORBIDDEN,
                    f"This API key lacks the scope '{scope}'.",
                    headers={"WWW-Authenticate": f'{CHALLENGE}, error="insufficient_scope", scope="{scope}"'},
                )
        return caller


caller_of = ApiKeyBearer(
    scheme_name="API key",
    bearerFormat="vsm_<key id>_<secret>",
    description="A key of `visum keys create`. Its scopes say what it may do; its tenant, whose summaries it sees.",
)


async def caller_if_known(request: Request, *, redis_answers: bool) -> Caller | None:
    """Who asks, for a route that is open to anybody."""
    access: Access = request.app.state.gateway.access
    return await access.caller_if_known(request, _token(request), redis_answers=redis_answers)


def _token(request: Request) -> str | None:
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else None
