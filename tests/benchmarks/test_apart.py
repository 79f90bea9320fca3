"""Something that lives in a process of its own answers from there, and ends with its block."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path

import pytest

from benchmarks.apart import apart


@contextmanager
def pid_noted_at_the_end(note: Path) -> Iterator[int]:
    yield os.getpid()
    note.write_text(str(os.getpid()))


@contextmanager
def broken() -> Iterator[None]:
    raise ValueError("can't be made")
    yield


def plus(held: int, more: int) -> tuple[int, int]:
    return os.getpid(), held + more


def test_what_is_called_runs_where_the_thing_lives(tmp_path: Path) -> None:
    with apart(pid_noted_at_the_end, tmp_path / "note") as there:
        there.made()
        pid, sum_ = there(plus, 1)
        assert pid != os.getpid()
        assert sum_ == pid + 1
        assert there(plus, 0) == (pid, pid)


def test_its_context_is_left_when_the_block_ends(tmp_path: Path) -> None:
    note = tmp_path / "note"
    with apart(pid_noted_at_the_end, note) as there:
        pid, _ = there(plus, 0)
        assert not note.exists()
    assert note.read_text() == str(pid)


def test_what_cannot_be_made_is_an_error_and_no_wait() -> None:
    with pytest.raises(BrokenProcessPool), apart(broken) as there:
        there.made()
