"""How commands speak: answers on stdout, progress and remarks on stderr."""

from __future__ import annotations

import json
from typing import Any

from rich.console import Console


def status_console() -> Console:
    """Progress bars and remarks; quiet bars where stderr is no terminal."""
    return Console(stderr=True, highlight=False)


def answer_console() -> Console:
    """Tables and answers."""
    return Console(highlight=False)


def print_json(value: Any) -> None:
    """One JSON document on stdout, as a script wants it."""
    print(json.dumps(value, ensure_ascii=False, indent=2))
