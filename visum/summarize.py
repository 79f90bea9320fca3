"""`visum summarize`: send videos, show how far each is, print the answers in the order they were named."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from visum.chart import show_result
from visum.client import FINISHED, Client, Options, Record
from visum.errors import CliError, ServiceError

STAGES = {
    "queued": "waiting",
    "decode": "reading frames",
    "adapter": "loading experts",
    "prefill": "watching",
    "generate": "writing",
}


@dataclass
class _Sent:
    """One file on its way: `summary_id` once accepted, `record` once finished."""

    path: Path
    task: TaskID
    summary_id: str | None = None
    record: Record | None = None


class _Board:
    """Where each file is: a bar each on a terminal; elsewhere, if wanted, a line for every change."""

    def __init__(self, status: Console, *, narrate: bool) -> None:
        self._narrate = narrate and not status.is_terminal
        self._status = status
        self._said: dict[TaskID, str] = {}
        self.bars = Progress(
            SpinnerColumn(),
            TextColumn("{task.fields[name]}"),
            BarColumn(),
            TextColumn("{task.description}"),
            TimeElapsedColumn(),
            console=status,
            transient=True,
            disable=not status.is_terminal,
        )

    def add(self, path: Path) -> _Sent:
        return _Sent(path, self.bars.add_task("to send", name=path.name, total=None))

    def show(self, item: _Sent, stage: str, done: int = 0, total: int | None = None) -> None:
        self.bars.update(item.task, description=stage, completed=done, total=total)
        if self._narrate and self._said.get(item.task) != stage:
            self._said[item.task] = stage
            self._status.print(f"{item.path.name}: {stage}", markup=False, highlight=False, soft_wrap=True)

    def complain(self, item: _Sent, error: CliError) -> None:
        line = f"visum: {item.path}: {error}"
        self._status.print(line, style="red", markup=False, highlight=False, soft_wrap=True)


def summarize(
    client: Client,
    paths: Sequence[Path],
    options: Options,
    *,
    as_json: bool,
    out: Console,
    status: Console,
    narrate: bool = False,
) -> bool:
    """Summarize files and print the answers; True when all of them succeeded.

    All are uploaded first, so that the service works on them together. An interrupt cancels the unfinished.
    With `narrate`, progress is told in lines where `status` is no terminal for bars.
    """
    board = _Board(status, narrate=narrate)
    sent = [board.add(path) for path in paths]
    succeeded = True
    try:
        with board.bars:
            for item in sent:
                succeeded &= _upload(client, item, options, board)
            for item in sent:
                if item.summary_id is not None:
                    _follow(client, item, board)
    except BaseException:
        _cancel_unfinished(client, sent)
        raise
    for item in sent:
        if item.record is not None:
            _print(item, as_json, out)
            succeeded &= item.record["status"] == "succeeded"
    return succeeded


def _upload(client: Client, item: _Sent, options: Options, board: _Board) -> bool:
    """Send one file. One that is refused is said so and does not stop the others."""
    size = item.path.stat().st_size if item.path.is_file() else None
    board.show(item, "uploading", total=size)
    try:
        accepted = client.submit(item.path, options, lambda count: board.bars.advance(item.task, count))
    except ServiceError as error:
        board.show(item, "refused")
        board.complain(item, error)
        return False
    item.summary_id = accepted["id"]
    board.show(item, STAGES["queued"])
    return True


def _follow(client: Client, item: _Sent, board: _Board) -> None:
    assert item.summary_id is not None
    for record in client.follow(item.summary_id):
        if record["status"] in FINISHED:
            item.record = record
            board.show(item, record["status"], 1, 1)
            return
        step = record.get("progress") or {}
        stage = STAGES.get(step.get("stage", "queued"), step.get("stage"))
        if record.get("position") is not None:
            stage = f"waiting, number {record['position']} in the queue"
        board.show(item, stage, step.get("done", 0), step.get("total") or None)


def _cancel_unfinished(client: Client, sent: Sequence[_Sent]) -> None:
    for item in sent:
        if item.summary_id is not None and item.record is None:
            with suppress(CliError):  # on the way out; the service ends it by itself if it cannot be told
                client.cancel(item.summary_id)


def _print(item: _Sent, as_json: bool, out: Console) -> None:
    if as_json:
        out.file.write(json.dumps(item.record, ensure_ascii=False) + "\n")
    else:
        assert item.record is not None
        show_result(out, item.path.name, item.record)
