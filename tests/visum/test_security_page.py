"""docs/security.md names a test beside every threat, and the test is there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "security.md").read_text()
NAMED = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")


def rows() -> list[list[str]]:
    """The rows of the tables whose last column is a test."""
    found: list[list[str]] = []
    threats = False
    for line in PAGE.splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")] if line.startswith("|") else []
        if not cells:
            threats = False
        elif cells[-1] == "test":
            threats = True
        elif threats and not cells[0].startswith("---"):
            found.append(cells)
    return found


def test_every_threat_has_a_test() -> None:
    assert len(rows()) > 20
    for row in rows():
        assert len(row) == 3, row
        assert NAMED.search(row[2]), row[0]


def test_every_test_that_is_named_exists() -> None:
    for path, name in NAMED.findall(PAGE):
        tree = ast.parse((ROOT / path).read_text())
        functions = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
        assert name in functions, f"{path}::{name}"
