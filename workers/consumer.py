"""The RQ worker: several jobs in flight in the threads of one process, which never forks.

RQ's own workers run one job at a time, most of them in a fork, and a forked process can't use a GPU that its
parent has touched. What is kept of RQ: its queue and reliable move, its leases (entries of the started registry),
its registration and its bookkeeping around a job. What is added: slots, a lease that is renewed while a job runs,
quick recovery of other workers' jobs, cancellation, deadlines, and an orderly end.
"""

import logging
import math
import os
import threading
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import redis.exceptions
from redis import Redis
from rq import Queue
from rq.exceptions import DequeueTimeout
from rq.executions import Execution
from rq.job import Job, Retry
from rq.registry import StartedJobRegistry
from rq.serializers import JSONSerializer
from rq.suspension import is_suspended
from rq.timeouts import BaseDeathPenalty
from rq.worker import BaseWorker, WorkerStatus
from rq.worker_registration import clean_worker_registry, register

from contract.errors import Code, RecordError, SummaryGone, SummaryNotFound
from contract.queue import JOB_TIMEOUT_SECONDS, SLOTS_FIELD, open_queue
from contract.records import JobError
from contract.store import SummaryStore
from workers.control import JobControl, StopReason
from workers.hang_watch import HangWatch
from workers.metrics import WorkerMetrics
from workers.patience import Patience
from workers.periodic import Periodic
from workers.recovery import Recovery
from workers.stopping import settle

log = logging.getLogger("visum.worker")

_DEQUEUE_S = 1
"""How long one look into the queue waits. A signal to stop is seen after this at the latest."""
_LOOKS_PER_NOTE = 5
"""A job's progress is written down at most once in so many looks at it: more often nobody asks."""
_ATTEMPTS_IN_COMPANY = 2
"""A job that was begun so often, and has no end, is begun again only where nothing else runs."""
_UNWIND_S = 5.0
"""How long a job may take to notice that the worker ends. After that it is handed back over its head."""
EXIT_HUNG = os.EX_SOFTWARE
"""The exit status of a process that ended although jobs of it still ran."""

_UNREADABLE = JobError(code=Code.INTERNAL_ERROR, message="The queue's note of this summary was damaged.")

Run = Callable[[str, JobControl], Retry | None]


@dataclass(frozen=True)
class Pace:
    """Seconds between the consumer's regular duties. A dead worker's job is taken up again after at most
    `lease_s` + `recovery_s`, or after `stranded_s` + 2 x `recovery_s` if it died within its first milliseconds."""

    lease_s: float = 45.0
    heartbeat_s: float = 10.0
    recovery_s: float = 10.0
    stranded_s: float = 30.0
    watch_s: float = 0.2
    drain_s: float = 25.0
    hang_s: float = 300.0


class NoDeathPenalty(BaseDeathPenalty):
    """RQ's timeouts raise in the main thread by a signal; ours are deadlines that the job itself looks at."""

    def setup_death_penalty(self) -> None:
        """Nothing to arm."""

    def cancel_death_penalty(self) -> None:
        """Nothing to disarm."""


class Consumer(BaseWorker):
    """Takes jobs off the one queue, each into a thread, until it is told to stop.

    `run(summary_id, control)` does a job; it ends soon after `control.stop` is set, and returns a `Retry`
    (with the record already queued again) or None. `capacity()` says how many jobs may be in flight now; it is
    asked before each job is taken.
    """

    death_penalty_class = NoDeathPenalty
    log_job_description = False
    log_result_lifespan = False

    def __init__(
        self,
        connection: Redis,
        store: SummaryStore,
        run: Run,
        metrics: WorkerMetrics,
        *,
        name: str,
        capacity: Callable[[], int],
        pace: Pace,
    ) -> None:
        self._pace = pace
        queue = open_queue(connection)
        super().__init__(
            [queue], name=name, connection=connection, serializer=JSONSerializer, worker_ttl=self._lease_s
        )
        self._queue: Queue = queue
        self._run = run
        self._store = store
        self._recovery = Recovery(queue, store, stranded_s=pace.stranded_s)
        self._metrics = metrics
        self._capacity = capacity
        self._controls: dict[str, JobControl] = {}
        self._controls_changed = threading.Condition()
        self._stopping = threading.Event()
        self._taking, self._renewing = threading.Lock(), threading.Lock()
        self._listed_slots = 0
        self._hangs = HangWatch(lambda: Patience(pace.hang_s, look_s=pace.watch_s))
        self._duties = [
            Periodic("heartbeat", pace.heartbeat_s, self.renew_leases),
            Periodic("watch", pace.watch_s, self.watch_jobs),
            Periodic("recovery", pace.recovery_s, self.recover),
        ]

    # -- what RQ asks of a worker ---------------------------------------------------------------

    @property
    def _lease_s(self) -> int:
        return math.ceil(self._pace.lease_s)

    @property
    def dequeue_timeout(self) -> int:
        return _DEQUEUE_S

    def get_heartbeat_ttl(self, job: Job, working_time: float = 0.0) -> int:
        """The lease of a job, the same from start to end."""
        return self._lease_s

    def heartbeat(self, timeout: int | None = None, pipeline: Any = None) -> None:
        """This process is alive for one more lease."""
        super().heartbeat(timeout or self._lease_s, pipeline)

    def _finalize_success(self, job: Job, queue: Queue, execution: Execution, return_value: Any) -> None:
        """Close RQ's books on a job, unless they are another worker's by now."""
        control = self._controls.get(job.id)
        lost = control is not None and control.reason is StopReason.LEASE_LOST
        if lost or self.connection.zscore(queue.started_job_registry.key, execution.composite_key) is None:
            self.executions.pop(execution.id, None)
            return
        super()._finalize_success(job, queue, execution, return_value)

    def _finalize_failure(
        self,
        job: Job,
        queue: Queue,
        execution: Execution,
        exc_info: tuple[type[BaseException] | None, BaseException | None, TracebackType | None],
    ) -> None:
        """A job ends in its record, never by an exception. If one gets here its end could not be written, as when
        Redis went away: the lease is left to run out, and whoever recovers the job tries again or gives it up."""
        log.error(
            "job %s could not be ended, its lease runs out in %d s", job.id, self._lease_s, exc_info=exc_info
        )
        self.executions.pop(execution.id, None)

    # -- from start to end ----------------------------------------------------------------------

    def consume(self) -> None:
        """Register, take jobs until `stop`, drain, unregister. Called once, when the model is ready."""
        self._track()
        self.register_birth()
        self.renew_leases()
        self.set_state(WorkerStatus.STARTED)
        self.recover()
        for duty in self._duties:
            duty.start()
        log.info("worker %s is ready on queue %s", self.name, self._queue.name)
        try:
            while not self._stopping.is_set():
                with self._taking:
                    self._fill_one_slot()
            self._drain()
        finally:
            for duty in self._duties:
                duty.stop()
            self.register_death()
            log.info("worker %s has stopped", self.name)

    def stop(self) -> None:
        """Take no more jobs and end what runs. Safe to call from a signal handler."""
        self._stopping.set()

    @property
    def in_flight(self) -> int:
        """How many jobs run now."""
        return len(self._controls)

    def _fill_one_slot(self) -> None:
        with self._controls_changed:
            if not self._controls_changed.wait_for(self._has_room, timeout=_DEQUEUE_S):
                return
        job = self._take()
        if job is not None:
            self._launch(job)

    def _has_room(self) -> bool:
        """Room for one more; beside a job that runs alone there is none."""
        if any(control.alone for control in self._controls.values()):
            return False
        return len(self._controls) < self._capacity()

    def _track(self) -> None:
        self._metrics.track_slots(self._capacity(), len(self._controls))

    def _take(self) -> Job | None:
        """The next job, by RQ's reliable move, or None after a while without one."""
        try:
            if is_suspended(self.connection):
                self._stopping.wait(_DEQUEUE_S)
                return None
            found = self.queue_class.dequeue_any(
                [self._queue],
                _DEQUEUE_S,
                connection=self.connection,
                job_class=self.job_class,
                serializer=self.serializer,
                death_penalty_class=self.death_penalty_class,
            )
            return found[0] if found is not None else None
        except DequeueTimeout:
            return None
        except redis.exceptions.RedisError as failure:
            log.warning("Redis did not answer (%s), trying again", failure)
            self._stopping.wait(_DEQUEUE_S)
            return None
        except Exception as unreadable:  # RQ names the job on whatever its bytes made it raise
            self._discard(getattr(unreadable, "job_id", None))
            return None

    def _discard(self, job_id: str | None) -> None:
        """Give up a job that RQ itself can't read: left where it is, it would stop every worker in turn."""
        log.exception("job %s can't be read and is given up", job_id)
        if job_id is None:
            return
        try:
            record = self._store.start(job_id, self.name)
            if record is not None:
                self._store.fail(job_id, record.generation, _UNREADABLE)
        except RecordError as damage:
            log.error("the record of job %s is damaged too and is kept as it is: %s", job_id, damage)
        self.connection.lrem(self._queue.intermediate_queue_key, 0, job_id)

    def _launch(self, job: Job) -> None:
        """Lease the job and give it a thread. If it can't be run here, whatever else holds it, or the recovery of
        stranded jobs, deals with it."""
        if job.id in self._controls:
            log.warning("job %s is in the queue although it runs here: left to recovery", job.id)
            return
        try:
            control = JobControl(
                job.id,
                job.timeout or JOB_TIMEOUT_SECONDS,
                alone=self._suspect(job.id),
                look_s=self._pace.watch_s,
            )
            with self._renewing:  # it is known here a moment before it is in Redis
                execution = self.prepare_execution(job)
        except redis.exceptions.RedisError:
            log.warning("job %s could not be leased, recovery will bring it back", job.id, exc_info=True)
            return
        with self._controls_changed:
            self._controls[job.id] = control
            self._track()
        threading.Thread(target=self._work, args=(job, execution), name=f"job-{job.id}", daemon=True).start()

    def _suspect(self, job_id: str) -> bool:
        """Whether a job may be what took its workers down: it runs alone then, and takes no other with it."""
        try:
            return self._store.get(job_id).attempts >= _ATTEMPTS_IN_COMPANY
        except (RecordError, SummaryNotFound, SummaryGone):
            return False  # it ends at its start

    def _wait_until_alone(self, control: JobControl) -> None:
        with self._controls_changed:
            self._controls_changed.wait_for(lambda: len(self._controls) == 1)
        control.start_clock()

    def _work(self, job: Job, execution: Execution) -> None:
        try:
            if self._controls[job.id].alone:
                self._wait_until_alone(self._controls[job.id])
            self.perform_job(job, self._queue, execution)
        finally:
            self.executions.pop(execution.id, None)
            with self._controls_changed:
                self._controls.pop(job.id, None)
                self._track()
                self._controls_changed.notify_all()

    def run(self, summary_id: str) -> Retry | None:
        """What `workers.job.summarize` calls, on the job's own thread."""
        return self._run(summary_id, self._controls[summary_id])

    # -- regular duties, each on its own thread -------------------------------------------------

    def renew_leases(self) -> None:
        """Move the end of every lease of this process forward; a job whose lease is gone is stopped.

        The process is listed again too: another worker takes one that was silent for long off the list.
        """
        registry: StartedJobRegistry = self._queue.started_job_registry
        slots = self._offered()
        with self._renewing:
            executions = self._held()
            with self.connection.pipeline() as pipeline:
                register(self, pipeline)
                self.heartbeat(pipeline=pipeline)
                pipeline.hset(self.key, SLOTS_FIELD, slots)
                for execution in executions:
                    execution.heartbeat(registry, self._lease_s, pipeline=pipeline)
                pipeline.execute()
            self._listed_slots = slots
        for execution in executions:
            if self.connection.zscore(registry.key, execution.composite_key) is None:
                self._lose(execution)

    def _held(self) -> list[Execution]:
        """The executions of this process whose leases are alive, moved on. They are moved by themselves: a Redis that
        is full takes this, and nothing of the rest.

        A lease that has run out, as while this process was paused, is not called to life again: somebody may be taking
        the job over just now, this process's own recovery among them.
        """
        executions = list(self.executions.values())
        with self.connection.pipeline(transaction=False) as pipeline:
            for execution in executions:
                pipeline.expire(execution.key, self._lease_s)
            alive = pipeline.execute()
        for execution, is_alive in zip(executions, alive, strict=True):
            if not is_alive:
                self._lose(execution)
        return [execution for execution, is_alive in zip(executions, alive, strict=True) if is_alive]

    def _offered(self) -> int:
        """How many jobs gateways may count on this worker for: none where it takes none."""
        taking = not self._stopping.is_set() and not is_suspended(self.connection)
        return self._capacity() if taking else 0

    def _lose(self, execution: Execution) -> None:
        self.connection.delete(execution.key)
        control = self._controls.get(execution.job_id)
        if control is not None and execution.id in self.executions:
            log.warning("job %s lost its lease, this run of it stops", execution.job_id)
            control.request_stop(StopReason.LEASE_LOST)

    def watch_jobs(self) -> None:
        """Tell jobs that were canceled, or that took too long, to stop; write down how far the others are.

        Where that leads to nothing the process ends: a thread that hangs can't be ended, and as long as the process
        lives, nobody takes its jobs.
        """
        if self._stopping.is_set() and self._listed_slots:
            self.renew_leases()  # nobody is to count on this worker any more
        controls = list(self._controls.values())
        for control in controls:
            if control.stop.is_set():
                continue
            if control.overdue():
                control.request_stop(StopReason.TIMED_OUT)
            elif control.generation is not None:
                self._watch(control, control.generation)
        if hung := self._hangs.hung(controls):
            ids = ", ".join(sorted(control.job_id for control in hung))
            log.critical("nothing has come of %s for %g s: this worker ends", ids, self._pace.hang_s)
            self._leave(hung)

    def _watch(self, control: JobControl, generation: int) -> None:
        try:
            if self._store.cancel_requested(control.job_id):
                control.request_stop(StopReason.CANCELED)
            else:
                self._note_progress(control, generation)
        except RecordError as damage:
            log.error("job %s runs on, but its record was damaged: %s", control.job_id, damage)

    def _note_progress(self, control: JobControl, generation: int) -> None:
        """Write down how far a job is, if that has changed and was not done just now."""
        progress, now = control.progress, time.monotonic()
        written, at = control.written
        if progress != written and now - at >= _LOOKS_PER_NOTE * self._pace.watch_s:
            control.written = (progress, now)
            self._store.progress(control.job_id, generation, progress)

    def recover(self) -> None:
        """Bring back what dead workers left, and forget those workers."""
        self._recovery.run()
        clean_worker_registry(self._queue)

    # -- the end --------------------------------------------------------------------------------

    def _drain(self) -> None:
        """Let what runs finish within the grace period, then stop it; each job hands itself back."""
        log.info("worker %s drains %d jobs for up to %g s", self.name, self.in_flight, self._pace.drain_s)
        if self._wait_until_idle(self._pace.drain_s):
            return
        for control in list(self._controls.values()):
            control.request_stop(StopReason.DRAINING)
        if not self._wait_until_idle(_UNWIND_S):
            log.error("%d jobs did not stop and are handed back over their heads", self.in_flight)
            self._leave()

    def _leave(self, hung: Collection[JobControl] = ()) -> None:
        """Settle all jobs, give their leases up, and end this process whatever still runs in it.

        Those that hang are counted as begun, as after a crash; the others get their attempt back. Raises RedisError:
        the leases run out then, or it is tried again.
        """
        self._stopping.set()
        with self._taking, self._renewing:  # what is handed back is not taken, nor leased, here again
            for control in list(self._controls.values()):
                self._settle(control, hung=control in hung)
            leases = [execution.key for execution in list(self.executions.values())]
            if leases:
                self.connection.delete(*leases)
            self._recovery.run()  # as it would be done for one that died
            self.register_death()
            os._exit(EXIT_HUNG)

    def _settle(self, control: JobControl, *, hung: bool) -> None:
        reason = control.reason or (None if hung else StopReason.DRAINING)
        if control.generation is None or reason is None:
            return  # not begun, or lost: recovery knows what to do
        try:
            settle(self._store, control.job_id, control.generation, reason)
        except RecordError as damage:
            log.error("job %s is given up, its record is kept as it is: %s", control.job_id, damage)

    def _wait_until_idle(self, timeout_s: float) -> bool:
        deadline = time.monotonic() + timeout_s
        while self._controls and time.monotonic() < deadline:
            time.sleep(0.05)
        return not self._controls
