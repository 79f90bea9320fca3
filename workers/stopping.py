"""How a job that was told to stop is written down: by its own thread, or over its head where that hangs."""

from contract.errors import Code
from contract.records import JobError
from contract.store import SummaryStore
from workers.control import StopReason

_TOO_LONG = JobError(code=Code.JOB_TIMEOUT, message="Summarizing this video took too long.")


def settle(store: SummaryStore, summary_id: str, generation: int, reason: StopReason) -> bool:
    """End the record, or hand the job back; True when it waits again and has to go back into the queue."""
    if reason is StopReason.CANCELED:
        store.finish_canceled(summary_id, generation)
    elif reason is StopReason.TIMED_OUT:
        store.fail(summary_id, generation, _TOO_LONG)
    elif reason is StopReason.DRAINING:
        return store.requeue(summary_id, generation, refund_attempt=True)
    return False
