"""Log lines: whose they are, and what must never be in them."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import textwrap

import pytest

from contract.logs import redact

SECRET = "f" * 64


def logged(log_format: str, code: str) -> list[str]:
    """What a process of its own writes to stderr: logging is set up for a whole process."""
    head = (
        "import logging, structlog\n"
        "from contract import logs\n"
        f"logs.configure({log_format!r})\n"
        "log = logging.getLogger('service.test')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", head + textwrap.dedent(code)],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
    )
    assert done.stdout == ""
    return done.stderr.splitlines()


def test_a_line_of_json_says_whose_work_it_was() -> None:
    (line,) = logged(
        "json",
        """
        with structlog.contextvars.bound_contextvars(request_id="r1", tenant="acme"):
            log.info("a summary is %s", "queued", extra={"summary_id": "S"})
        """,
    )
    event = json.loads(line)
    assert event.pop("timestamp")
    assert event == {
        "event": "a summary is queued",
        "level": "info",
        "logger": "service.test",
        "request_id": "r1",
        "tenant": "acme",
        "summary_id": "S",
    }


def test_a_line_for_people_says_it_too() -> None:
    (line,) = logged("console", "log.warning('beware', extra={'tenant': 'acme', 'request_id': None})")
    assert line.endswith(" WARNING service.test: beware tenant=acme")


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_a_files_name_can_not_forge_a_line_nor_move_the_cursor(log_format: str) -> None:
    lines = logged(log_format, r"log.info('took %s', 'a\n2026 ERROR forged\x1b[2J\u2028\u202e.mp4')")
    assert len(lines) == 1
    assert "\x1b" not in lines[0]


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_what_an_exception_says_can_not_forge_a_line_nor_move_the_cursor(log_format: str) -> None:
    lines = logged(
        log_format,
        r"""
        try:
            raise ValueError("a\n2026 ERROR forged\x1b[2J\u2028\r")
        except ValueError:
            log.exception("failed")
        """,
    )
    assert "failed" in lines[0]
    assert all(line.startswith("  ") for line in lines[1:])
    assert "\x1b" not in "".join(lines)


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_secrets_are_struck_out_of_messages_fields_and_tracebacks(log_format: str) -> None:
    text = "\n".join(
        logged(
            log_format,
            f"""
            log.warning("got vsm_0123456789ab_{SECRET}", extra={{"url": "rediss://user:hunter2@host:6379/0"}})
            try:
                raise ValueError("redis://:hunter2@host vsm_0123456789ab_{SECRET}")
            except ValueError:
                log.exception("failed")
            """,
        )
    )
    assert "hunter2" not in text
    assert SECRET not in text
    assert "vsm_0123456789ab_***" in text
    assert "rediss://user:***@host:6379/0" in text
    assert "ValueError" in text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("redis://u:p@ss@h:1/0", "redis://u:***@h:1/0"),
        ("redis://h:1/0?password=x&db=1", "redis://h:1/0?password=***&db=1"),
        ("redis://h:6379/0 and http://h:80/a@b", "redis://h:6379/0 and http://h:80/a@b"),
        ("no secret: a_b_c", "no secret: a_b_c"),
    ],
)
def test_only_secrets_are_struck_out(text: str, shown: str) -> None:
    assert redact(text) == shown


def test_libraries_speak_up_when_something_is_wrong() -> None:
    lines = logged(
        "console", "for level in ('info', 'warning'): getattr(logging.getLogger('rq'), level)(level)"
    )
    assert [line.rsplit(" ", 1)[1] for line in lines] == ["warning"]


def test_nothing_is_set_up_by_importing() -> None:
    code = "import logging, contract.logs; print(logging.getLogger().handlers)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    assert logging.getLogger("service").level in (logging.NOTSET, logging.WARNING)
