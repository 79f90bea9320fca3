"""A shape small enough for tests."""

from __future__ import annotations

from benchmarks.random_model import Shape

TINY = Shape("tiny", 32, 48, 2, 4, 2, 32, 40, 2, 2)
