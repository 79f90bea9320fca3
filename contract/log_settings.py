"""What settings may say of logging; apart from `contract.logs`, so that reading settings loads no structlog."""

from __future__ import annotations

from typing import Literal

LogFormat = Literal["console", "json"]
LogLevel = Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"]
