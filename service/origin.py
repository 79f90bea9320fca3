"""Whether a request to a gateway on loopback comes from this machine, or through it from elsewhere."""

from __future__ import annotations

from functools import lru_cache
from ipaddress import ip_address
from urllib.parse import urlsplit

from starlette.requests import Request


def from_elsewhere(request: Request) -> bool:
    """Whether it was sent under another name than this machine's, or by a web page of another.

    A browser on this machine runs pages of strangers. Such a page may send forms to loopback (its own address is
    in Origin then), or have its own name resolve to loopback and read the answers (it is in Host then).
    """
    named = (request.headers.get("host", ""), request.headers.get("origin"))
    return not all(_is_loopback(name) for name in named if name is not None)


@lru_cache(maxsize=256)
def _is_loopback(name: str) -> bool:
    """Whether `HOST[:PORT]`, or an origin, is loopback itself and no name that may be made to mean it."""
    try:
        host = urlsplit(name if "//" in name else f"//{name}").hostname or ""
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False
