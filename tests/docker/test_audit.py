"""What `make check` makes of pip-audit's answers."""

from __future__ import annotations

import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.docker.scripts import script

SOUND = {"name": "a", "version": "1", "vulns": []}
VULNERABLE = {"name": "b", "version": "2", "vulns": [{"id": "CVE-2026-0001"}]}
UNKNOWN = {"name": "c", "skip_reason": "Dependency not found"}


INDEX = """
import io, json, re
import urllib3
from requests.adapters import HTTPAdapter

def answer(self, request, *rest, **options):
    name = re.fullmatch("https://pypi.org/pypi/([^/]+)/[^/]+/json", request.url)[1]
    known = [{"id": "CVE-2026-0001", "aliases": [], "fixed_in": ["999"], "summary": "planted"}]
    told = json.dumps({"vulnerabilities": known if name == "VULNERABLE" else []}).encode()
    return self.build_response(request, urllib3.HTTPResponse(io.BytesIO(told), status=200, preload_content=False))

HTTPAdapter.send = answer
"""
"""Python reads this first in whatever process finds it on its path as sitecustomize.py: pip-audit's own requests, but
for the network, end here."""


@pytest.fixture
def audit() -> ModuleType:
    return script("audit")


@pytest.mark.parametrize("vulnerable", ["hatchling", "torch"])
def test_pip_audit_is_asked_of_every_lock_and_its_findings_fail_the_check(
    audit: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    vulnerable: str,
) -> None:
    """The real pip-audit over the real lock files; the index that it asks is the test's."""
    (tmp_path / "sitecustomize.py").write_text(INDEX.replace("VULNERABLE", vulnerable))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert audit.main() == 1
    said = capsys.readouterr()
    assert re.fullmatch(rf"requirements-\w+\.lock: {vulnerable} \S+: CVE-2026-0001\n", said.err)
    assert "nothing known against" in said.out  # of the other lock


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
