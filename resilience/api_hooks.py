"""What schemathesis cannot make up: the bytes of a video. Loaded by it through SCHEMATHESIS_HOOKS."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import schemathesis

import visum
from contract.records import AUTO_DOMAIN

SAMPLE = Path(visum.__file__).parent / "samples" / "traffic.mp4"


@schemathesis.hook
def map_body(context: schemathesis.HookContext, body: Any) -> Any:
    """Two of three forms get a real clip, and one of three in all what goes with it, so that it is taken."""
    if not isinstance(body, dict) or not isinstance(body.get("file"), str | bytes):
        return body
    turn = (
        len(repr(sorted(body.items()))) % 3
    )  # by the form itself, so that a failure can be shrunk and repeated
    if turn == 0:
        return body
    form = {**body, "file": _clip()}
    if turn == 1:
        form.pop("adapter_version", None)
        form |= {"domain": AUTO_DOMAIN, "max_new_tokens": 4}
    return form


@cache
def _clip() -> bytes:
    return SAMPLE.read_bytes()
