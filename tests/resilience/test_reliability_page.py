"""docs/reliability.md names a test for every promise, and the test is there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from resilience.faults import FAULTS

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "reliability.md"


def _promises() -> list[str]:
    """The rows of the table of promises."""
    table = PAGE.read_text().split("## Promises")[1].split("\n## ")[0]
    return [line for line in table.splitlines() if line.startswith("|")][2:]


def test_every_fault_of_the_kill_test_is_in_the_table_of_figures() -> None:
    table = PAGE.read_text().split("## Promises")[0]
    named = [line.split("|")[1].strip() for line in table.splitlines() if line.startswith("|")][2:]
    assert named == [fault.name for fault in FAULTS]


@pytest.mark.parametrize("row", _promises(), ids=lambda row: row.split("|")[1].strip()[:40])
def test_the_test_of_a_promise_exists(row: str) -> None:
    named = re.fullmatch(r"`(\S+?)(?:::(\S+))?`", row.split("|")[5].strip())
    assert named is not None, "a row without a test"
    file, path = named.groups()
    scope: ast.AST = ast.parse((ROOT / "tests" / file).read_text())
    for name in path.split("::") if path else ():
        found = [node for node in ast.iter_child_nodes(scope) if getattr(node, "name", None) == name]
        assert found, f"{file} has no {name}"
        scope = found[0]
