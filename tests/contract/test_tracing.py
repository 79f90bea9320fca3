"""Traces where they are not asked for, or can't be had. How they look where they are: tests/visum."""

from __future__ import annotations

import subprocess
import sys

from contract import tracing


def test_without_a_collector_there_is_no_trace_and_no_sdk() -> None:
    code = (
        "import sys\n"
        "from contract import tracing\n"
        "tracing.configure('visum-test')\n"
        "with tracing.span('a'):\n"
        "    print(tracing.traceparent(), 'opentelemetry.sdk' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"PATH": ""}
    )
    assert (done.stdout.split(), done.stderr) == (["None", "False"], "")


def test_a_collector_without_the_extra_is_said() -> None:
    code = (
        "import sys\n"
        "sys.modules['opentelemetry.sdk'] = None\n"
        "sys.modules['opentelemetry.exporter.otlp.proto.http.trace_exporter'] = None\n"
        "from contract import tracing\n"
        "tracing.configure('visum-test')\n"
    )
    environment = {"PATH": "", tracing.ENDPOINT_VARIABLES[0]: "http://127.0.0.1:9"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment
    )
    assert "milora-visum[otel]" in done.stderr
