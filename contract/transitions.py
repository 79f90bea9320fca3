"""The life of a record, as pure functions: one per arrow.

    queued ──start──▶ running ──succeed──▶ succeeded
      ▲  │               │ │──fail───────▶ failed
      │  └──cancel──┐    │ └──canceled──▶ canceled
      └──requeue────│────┘                   ▲
                    └────────────────────────┘

A function returns the next record, the same one when there is nothing left to do, or None when the
arrow is not there from where the record is: the caller's write comes too late and must not count.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from contract.errors import Code
from contract.records import JobError, Progress, Stage, Status, SummaryRecord
from contract.result import SummaryResult

_DOING = {
    Stage.QUEUED: "taking it up",
    Stage.DECODE: "decoding it",
    Stage.ADAPTER: "choosing and loading the experts for it",
    Stage.PREFILL: "reading it into the model",
    Stage.GENERATE: "writing its summary",
}
_CANCELED = JobError(code=Code.JOB_CANCELED, message="Canceled on request.")


def start(
    record: SummaryRecord, *, worker: str, now: datetime, keep: timedelta, max_attempts: int
) -> SummaryRecord | None:
    """A worker takes the job. From `running` it takes over from a worker that is gone.

    Ends it instead when it was canceled meanwhile, or when it was begun `max_attempts` times: a
    job that takes its worker down each time must not go round for ever. It ends with the kind of
    death that its last attempt had.
    """
    if record.status.finished:
        return None
    if record.cancel_requested:
        return _finish(record, Status.CANCELED, now, keep, error=_CANCELED)
    if record.attempts >= max_attempts:
        setback = record.setback if record.status is Status.QUEUED else None
        return _finish(record, Status.FAILED, now, keep, error=setback or _lost(record))
    return record.model_copy(
        update={
            "status": Status.RUNNING,
            "started_at": now,
            "progress": Progress(),
            "attempts": record.attempts + 1,
            "generation": record.generation + 1,
            "worker": worker,
        }
    )


def advance(record: SummaryRecord, *, generation: int, progress: Progress) -> SummaryRecord | None:
    """The worker that holds the job says how far it is."""
    if not _held(record, generation):
        return None
    return record.model_copy(update={"progress": progress})


def succeed(
    record: SummaryRecord, *, generation: int, result: SummaryResult, now: datetime, keep: timedelta
) -> SummaryRecord | None:
    """The summary is there. Saying it twice is saying it once: an answer may get lost on the way.

    A cancel that was confirmed before holds: the record is canceled then, and the summary is dropped.
    """
    if record.status is Status.SUCCEEDED and record.generation == generation:
        return record
    if not _held(record, generation):
        return None
    if record.cancel_requested:
        return _finish(record, Status.CANCELED, now, keep, error=_CANCELED)
    return _finish(record, Status.SUCCEEDED, now, keep, result=result)


def fail(
    record: SummaryRecord, *, generation: int, error: JobError, now: datetime, keep: timedelta
) -> SummaryRecord | None:
    """There will be no summary, and `error` says why."""
    if record.status is Status.FAILED and record.generation == generation:
        return record
    if not _held(record, generation):
        return None
    return _finish(record, Status.FAILED, now, keep, error=error)


def requeue(
    record: SummaryRecord,
    *,
    generation: int,
    refund_attempt: bool,
    setback: JobError | None,
    now: datetime,
    keep: timedelta,
) -> SummaryRecord | None:
    """The worker hands the job back. `refund_attempt`: it did so of its own accord, as when it shuts down. `setback`:
    the attempt failed in a way that may pass."""
    return _again(
        record,
        generation,
        now,
        keep,
        attempts=record.attempts - refund_attempt,
        failures=record.failures + (setback is not None),
        setback=setback or record.setback,
    )


def lose(record: SummaryRecord, *, generation: int, now: datetime, keep: timedelta) -> SummaryRecord | None:
    """The worker is gone: the job waits again, and keeps what the worker was doing."""
    if record.status is Status.QUEUED:
        return record
    return _again(record, generation, now, keep, setback=_lost(record))


def request_cancel(record: SummaryRecord, *, now: datetime, keep: timedelta) -> SummaryRecord:
    """A queued job is canceled at once; a running one is flagged for its worker; a finished one stays."""
    if record.status is Status.QUEUED:
        return _finish(record, Status.CANCELED, now, keep, error=_CANCELED)
    if record.status is Status.RUNNING and not record.cancel_requested:
        return record.model_copy(update={"cancel_requested": True})
    return record


def finish_canceled(
    record: SummaryRecord, *, generation: int, now: datetime, keep: timedelta
) -> SummaryRecord | None:
    """The worker has stopped on request."""
    if record.status is Status.CANCELED and record.generation == generation:
        return record
    if not _held(record, generation):
        return None
    return _finish(record, Status.CANCELED, now, keep, error=_CANCELED)


def _lost(record: SummaryRecord) -> JobError:
    doing = _DOING[record.progress.stage]
    times = "once" if record.attempts == 1 else f"{record.attempts} times"
    return JobError(
        code=Code.JOB_LOST,
        message=f"The machines working on this video were killed or stopped answering {times}, "
        f"the last one while {doing}; it was given up.",
    )


def _again(
    record: SummaryRecord, generation: int, now: datetime, keep: timedelta, **update: object
) -> SummaryRecord | None:
    """A running job waits once more, unless it is to be canceled."""
    if not _held(record, generation):
        return None
    if record.cancel_requested:
        return _finish(record, Status.CANCELED, now, keep, error=_CANCELED)
    waiting = {"status": Status.QUEUED, "started_at": None, "progress": Progress(), "worker": None}
    return record.model_copy(update={**waiting, **update})


def _held(record: SummaryRecord, generation: int) -> bool:
    return record.status is Status.RUNNING and record.generation == generation


def _finish(
    record: SummaryRecord,
    status: Status,
    now: datetime,
    keep: timedelta,
    *,
    result: SummaryResult | None = None,
    error: JobError | None = None,
) -> SummaryRecord:
    progress = record.progress
    if result is not None:
        tokens = result.usage.completion_tokens
        progress = Progress(stage=Stage.GENERATE, done=tokens, total=tokens)
    return record.model_copy(
        update={
            "status": status,
            "finished_at": now,
            "expires_at": now + keep,
            "progress": progress,
            "result": result,
            "error": error,
        }
    )
