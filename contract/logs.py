"""How every process logs: one line an event, as JSON or for people, with what is bound to the work at hand.

Modules log through `logging` as ever; what is bound with `structlog.contextvars` (request id, tenant, summary
id) is added to each line of that request or job. Secrets that get into a line are struck out of it.
"""

from __future__ import annotations

import logging
import re
from collections.abc import MutableMapping
from typing import Any

import structlog
from structlog.types import Processor

from contract.log_settings import LogFormat, LogLevel

_SECRETS = (
    (re.compile(r"\b(vsm_[0-9A-Za-z]+)_[0-9A-Za-z]+"), r"\1_***"),  # an API key; its id is no secret
    (
        re.compile(r"(\b[a-z][a-z0-9+.-]*://[^\s/@:]*):[^\s/]*@", re.IGNORECASE),
        r"\1:***@",
    ),  # a URL's password
    (re.compile(r"([?&]password=)[^\s&'\"]+", re.IGNORECASE), r"\1***"),
)


def redact(text: str) -> str:
    """The text without API keys' secrets and without passwords in URLs."""
    for pattern, replacement in _SECRETS:
        text = pattern.sub(replacement, text)
    return text


def configure(log_format: LogFormat, level: LogLevel = "INFO", *, libraries: LogLevel = "WARNING") -> None:
    """Send all logging to stderr in this format: ours from `level` on, libraries' from `libraries` on."""
    timestamp = structlog.processors.TimeStamper(fmt="iso", utc=True)
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.ExtraAdder(),
        timestamp,
    ]
    render: list[Processor] = [
        structlog.stdlib.ProcessorFormatter.remove_processors_meta,
        structlog.processors.format_exc_info,
        _redacted,
        structlog.processors.JSONRenderer() if log_format == "json" else _line,
    ]
    handler = logging.StreamHandler()
    handler.setFormatter(structlog.stdlib.ProcessorFormatter(processors=render, foreign_pre_chain=shared))
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(libraries)
    for ours in ("visum", "service", "contract", "model_store"):
        logging.getLogger(ours).setLevel(level)


def _redacted(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    for name, value in event.items():
        if isinstance(value, str):
            event[name] = redact(value)
    return event


def _line(_: Any, __: str, event: MutableMapping[str, Any]) -> str:
    """One line for people, and a traceback's lines after it."""
    head = [event.pop(name, "") for name in ("timestamp", "level", "logger", "event")]
    traceback = event.pop("exception", None)
    timestamp, level, logger, message = (_escaped(str(part)) for part in head)
    bound = "".join(
        f" {name}={_escaped(str(value))}" for name, value in sorted(event.items()) if value is not None
    )
    line = f"{timestamp} {level.upper()} {logger}: {message}{bound}"
    if traceback is None:
        return line
    # Set in, so that what an exception says begins no line of its own.
    return "\n  ".join([line, *(_escaped(part) for part in str(traceback).split("\n"))])


def _escaped(text: str) -> str:
    """What a client chose, a file's name above all, can't begin a line or move the cursor. JSON escapes by itself."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)
