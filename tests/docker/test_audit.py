"""What `make check` makes of pip-audit's answers."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

SCRIPT = Path(__file__).parents[2] / "docker" / "audit.py"
SOUND = {"name": "a", "version": "1", "vulns": []}
VULNERABLE = {"name": "b", "version": "2", "vulns": [{"id": "CVE-2026-0001"}]}
UNKNOWN = {"name": "c", "skip_reason": "Dependency not found"}


@pytest.fixture
def audit(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location("audit", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(audit: ModuleType, monkeypatch: pytest.MonkeyPatch, answer: list[dict[str, Any]] | str) -> int:
    monkeypatch.setattr(audit, "_ask", lambda lock: answer)
    return audit.main()


def test_a_known_vulnerability_fails_the_check(
    audit: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(audit, monkeypatch, [SOUND, VULNERABLE]) == 1
    assert "b 2: CVE-2026-0001" in capsys.readouterr().err


@pytest.mark.parametrize("answer", ["connection refused", [UNKNOWN, UNKNOWN]])
def test_without_an_index_that_answers_it_is_skipped_and_says_so(
    audit: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], answer: Any
) -> None:
    assert run(audit, monkeypatch, answer) == 0
    assert "skipped" in capsys.readouterr().out


def test_what_the_index_does_not_know_is_named(
    audit: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(audit, monkeypatch, [SOUND, UNKNOWN]) == 0
    assert "not told: c" in capsys.readouterr().out
