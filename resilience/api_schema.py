"""The whole OpenAPI document against the running service, by schemathesis."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from resilience.api_service import Running

CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "unsupported_method",
    "allow_header_conformance",
    "ignored_auth",
)
"""Not asked: that a form which fits its schema is taken (no schema says which bytes are a video), that one which does
not is refused (to schemathesis one without the optional Idempotency-Key does not), and that a DELETE ends a resource
(one that cancels does not): `api_machine` and the tests of the gateway hold what of that is promised."""
PHASES = "examples,coverage,fuzzing,stateful"
SEED = 20260504


UNDOCUMENTED = frozenset(
    {"UndefinedStatusCode", "UndefinedContentType", "MissingContentType", "MalformedMediaType"}
)


@dataclass(frozen=True)
class Outcome:
    """What was asked and how it was answered: (method, status) and kind of failure, each with its count.

    `report` is schemathesis' own, in words.
    """

    answers: Counter[tuple[str, int]]
    failures: Counter[str]
    report: str

    @property
    def requests(self) -> int:
        return sum(self.answers.values())

    @property
    def server_errors(self) -> int:
        return sum(count for (_, status), count in self.answers.items() if status >= 500)

    @property
    def undocumented(self) -> int:
        return sum(count for kind, count in self.failures.items() if kind in UNDOCUMENTED)

    @property
    def other_failures(self) -> int:
        return self.failures.total() - self.undocumented


def fuzz(service: Running, scratch: Path, *, examples: int, phases: str = PHASES) -> Outcome:
    """Every operation in every phase, `examples` cases each.

    Raises:
        RuntimeError: schemathesis did not get to its end.
    """
    har, told = scratch / "api.har", scratch / "api.json"
    ran = subprocess.run(
        [
            *(sys.executable, "-m", "schemathesis.cli", "run", f"{service.url}/openapi.json"),
            *("--header", f"Authorization: Bearer {service.token}"),
            *("--checks", ",".join(CHECKS), "--continue-on-failure", "--max-redirects", "0"),
            *("--phases", phases, "--max-examples", str(examples), "--seed", str(SEED)),
            *("--report", "har,json", "--report-har-path", str(har), "--report-json-path", str(told)),
        ],
        env={**os.environ, "SCHEMATHESIS_HOOKS": "resilience.api_hooks"},
        cwd=scratch,
        capture_output=True,
        text=True,
        check=False,
    )
    report = json.loads(told.read_text()) if told.exists() else {"complete": False, "errors": []}
    if not report["complete"] or report["errors"]:
        raise RuntimeError(
            f"schemathesis ended with {ran.returncode}\n{ran.stdout[-2000:]}{ran.stderr[-2000:]}"
        )
    entries = json.loads(har.read_text())["log"]["entries"]
    answers = Counter((entry["request"]["method"], entry["response"]["status"]) for entry in entries)
    failures = Counter({failure["type"]: failure["count"] for failure in report["failures"]})
    return Outcome(answers, failures, ran.stdout)
