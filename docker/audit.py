"""Asks an index whether anything locked for the images is known to be vulnerable; says so where no index answers."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
LOCKS = (
    HERE / "requirements-build.lock",
    HERE / "requirements-worker.lock",
)  # the worker's holds the gateway's
PATIENCE_S = 120


def main() -> int:
    code = 0
    for lock in LOCKS:
        found = _ask(lock)
        if isinstance(found, str):
            print(f"audit of {lock.name}: skipped, no index answers ({found})")
            continue
        vulnerable = [one for one in found if one.get("vulns")]
        unknown = [one["name"] for one in found if "skip_reason" in one]
        for one in vulnerable:
            ids = ", ".join(vulnerability["id"] for vulnerability in one["vulns"])
            print(f"{lock.name}: {one['name']} {one['version']}: {ids}", file=sys.stderr)
        if found and len(unknown) == len(found):
            print(f"audit of {lock.name}: skipped, the index here tells of no vulnerabilities")
        elif not vulnerable:
            told = f"; not told: {', '.join(unknown)}" if unknown else ""
            print(f"audit of {lock.name}: nothing known against {len(found) - len(unknown)} packages{told}")
        code |= bool(vulnerable)
    return code


def _ask(lock: Path) -> list[dict[str, Any]] | str:
    """What pip-audit found, one entry a package; or why there was no answer."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "audit.json"
        command = [sys.executable, "-m", "pip_audit", "--disable-pip", "--require-hashes"]
        command += ["--progress-spinner", "off", "-r", str(lock), "-f", "json", "-o", str(report)]
        try:
            ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE_S)
        except subprocess.TimeoutExpired:
            return f"nothing in {PATIENCE_S} s"
        if not report.exists():
            lines = ran.stderr.strip().splitlines()
            return lines[-1][:120] if lines else f"pip-audit ended with {ran.returncode}"
        return json.loads(report.read_text())["dependencies"]


if __name__ == "__main__":
    sys.exit(main())
