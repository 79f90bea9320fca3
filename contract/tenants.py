"""Tenants: whose a summary is. Everything that a client can list, read or delete is its tenant's own."""

from __future__ import annotations

import re

DEFAULT_TENANT = "default"  # whose everything is where no keys are asked for
TENANT_PATTERN = r"[a-z0-9][a-z0-9-]{0,62}"
_TENANT = re.compile(TENANT_PATTERN, re.ASCII)


def is_tenant(name: str) -> bool:
    """Whether `name` can be a tenant's. Names become parts of Redis keys: check before use."""
    return _TENANT.fullmatch(name) is not None
