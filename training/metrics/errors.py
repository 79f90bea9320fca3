"""Why a figure cannot be had on this machine."""

from __future__ import annotations


class MetricUnavailable(Exception):
    """A metric that was asked for cannot be computed here; the message says what it needs."""
