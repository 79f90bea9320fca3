"""How a running job is told to stop, from whichever thread finds the reason."""

import math
import threading
from enum import StrEnum

from contract.records import Progress, Stage
from workers.patience import Patience

_LOOK_S = 0.2


class StopReason(StrEnum):
    """Why a running job has to end before its answer."""

    CANCELED = "canceled"
    TIMED_OUT = "timed_out"
    LEASE_LOST = "lease_lost"
    DRAINING = "draining"


class Stopped(Exception):
    """Raised inside a job at the first point where it can stop."""

    def __init__(self, reason: StopReason) -> None:
        super().__init__(reason.value)
        self.reason = reason


class JobControl:
    """One running job, seen from outside its thread.

    `stop` is what long work waits on or looks at, `reason` says why it is set. `generation` is filled when the
    record is started. `alone`: it runs when nothing else does, and its time counts from there. `progress` is only
    noted here; the consumer's watch writes it down now and then, and keeps in `written` what it wrote last, and when.
    """

    def __init__(
        self, job_id: str, timeout_s: float, *, alone: bool = False, look_s: float = _LOOK_S
    ) -> None:
        """`look_s`: how often it is asked whether it is overdue."""
        self.job_id = job_id
        self.alone = alone
        self.stop = threading.Event()
        self.generation: int | None = None
        self.progress = Progress()
        self.written: tuple[Progress | None, float] = (None, -math.inf)
        self._timeout_s, self._look_s = timeout_s, look_s
        self._patience: Patience | None = None
        if not alone:
            self.start_clock()
        self._reason: StopReason | None = None
        self._lock = threading.Lock()

    def start_clock(self) -> None:
        """The job begins: its time counts from here."""
        self._patience = Patience(self._timeout_s, look_s=self._look_s)

    @property
    def reason(self) -> StopReason | None:
        return self._reason

    def overdue(self) -> bool:
        """Whether the job has used up its time; one thread asks, again and again."""
        return self._patience is not None and self._patience.over()

    def report(self, stage: Stage, done: int = 0, total: int = 0) -> None:
        """Say how far the job is."""
        self.progress = Progress(stage=stage, done=done, total=total)

    def request_stop(self, reason: StopReason) -> None:
        """Stop the job for this reason. The first reason given stays, but a lost lease overrides all others."""
        with self._lock:
            if self._reason is None or reason is StopReason.LEASE_LOST:
                self._reason = reason
            self.stop.set()

    def check(self) -> None:
        """Raises:
        Stopped: if the job was told to stop.
        """
        if self.stop.is_set():
            raise Stopped(self._reason or StopReason.CANCELED)
