"""Summary ids: ULIDs, so that their order is the order of creation.

26 characters of Crockford's base 32: 48 bits of milliseconds since the epoch, then 80 random bits.
"""

from __future__ import annotations

import re
import secrets
from datetime import UTC, datetime

_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_VALUES = {letter: value for value, letter in enumerate(_ALPHABET)}
_ULID = re.compile(r"[0-7][0-9A-HJKMNP-TV-Z]{25}", re.ASCII)


def new_id(now: datetime) -> str:
    """A fresh id that carries `now` to the millisecond."""
    bits = int(now.timestamp() * 1000) << 80 | secrets.randbits(80)
    letters = []
    for _ in range(26):
        bits, value = divmod(bits, 32)
        letters.append(_ALPHABET[value])
    return "".join(reversed(letters))


def is_id(text: str) -> bool:
    """Whether `text` could be an id. Ids become file names and Redis keys: check before use."""
    return _ULID.fullmatch(text) is not None


def created_at(summary_id: str) -> datetime:
    """The moment an id carries (UTC).

    Raises:
        ValueError: `summary_id` is no id.
    """
    if not is_id(summary_id):
        raise ValueError(f"{summary_id!r} is not a summary id")
    milliseconds = 0
    for letter in summary_id[:10]:
        milliseconds = milliseconds * 32 + _VALUES[letter]
    return datetime.fromtimestamp(milliseconds / 1000, UTC)
