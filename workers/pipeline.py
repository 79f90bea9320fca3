"""One job from top to bottom: start, decode, route, pin the adapter, generate, write the result."""

import logging
import threading
import time
from collections.abc import Callable, Hashable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import chain

import redis.exceptions
from rq.job import Retry
from structlog.contextvars import bind_contextvars

from contract import tracing
from contract.blobs import BlobStore
from contract.errors import BlobMissing, Code, JobFailure, RecordError
from contract.queue import LEASE_SECONDS, MAX_FAILURES
from contract.records import AUTO_DOMAIN, JobError, Stage, SummaryRecord
from contract.result import SummaryResult
from contract.store import SummaryStore
from model_store.manifest import GENERAL_DOMAIN
from workers.adapter_desk import AdapterDesk, PinnedAdapter
from workers.answer import Findings, Origin, build_result
from workers.control import JobControl, Stopped, StopReason
from workers.decode import DecodeCanceled, DecodedVideo, decode
from workers.decode_probe import SandboxWatch
from workers.engine import Engine
from workers.frame_plan import DecodeLimits
from workers.health import out_of_memory
from workers.metrics import TOTAL, WorkerMetrics
from workers.prefill import Look
from workers.prompt import Prompt, PromptBuilder
from workers.request import EngineAnswer, EngineBroken, EngineClosed, EngineRequest, RequestStopped
from workers.retries import HAND_BACK, try_later
from workers.router import Mark, Route, route
from workers.stopping import settle

log = logging.getLogger("visum.job")

_INTERNAL = "Something went wrong here that is not the video's fault; it has been logged."
_NO_MEMORY = "The machine ran out of memory over this video."
_WRITE_AGAIN_S = 1.0


class Pipeline:
    """Runs jobs, any number at once, each on a thread of its own."""

    def __init__(
        self,
        *,
        worker: str,
        store: SummaryStore,
        blobs: BlobStore,
        prompts: PromptBuilder,
        desk: AdapterDesk,
        engine: Engine,
        origin: Origin,
        metrics: WorkerMetrics,
        sandbox: SandboxWatch,
        general_prototype: dict | None,
        limits: DecodeLimits,
        decode_processes: int,
        default_new_tokens: int,
        max_new_tokens: int,
    ) -> None:
        self._worker = worker
        self._store = store
        self._blobs = blobs
        self._prompts = prompts
        self._desk = desk
        self._engine = engine
        self._origin = origin
        self._metrics = metrics
        self._sandbox = sandbox
        self._general = [] if general_prototype is None else [(GENERAL_DOMAIN, Mark.of(general_prototype))]
        self._limits = limits
        self._decoders = threading.Semaphore(decode_processes)
        self._default_new_tokens = default_new_tokens
        self._max_new_tokens = max_new_tokens
        self._told: dict[str, float] = {}
        self._preparing = ThreadPoolExecutor(1, thread_name_prefix="visum-prepare")

    def run(self, summary_id: str, control: JobControl) -> Retry | None:
        """Do a job; every way that it can end is written to its record. Returns a Retry to have it queued again."""
        record = self._begin(summary_id)
        if record is None:
            return None
        control.generation = record.generation
        try:
            with tracing.resumed(
                "summarize",
                record.traceparent,
                record.created_at,
                **{"visum.summary_id": record.id, "visum.tenant": record.tenant},
            ):
                result = self._summarize(record, control)
        except (Stopped, RequestStopped, DecodeCanceled, EngineClosed):
            return self._stopped(record, control.reason or StopReason.DRAINING)
        except EngineBroken:
            return self._suspected(record)
        except JobFailure as failure:
            return self._failed(record, failure)
        except redis.exceptions.RedisError:
            raise
        except Exception as bug:
            if out_of_memory(bug):
                return self._failed(record, JobFailure(Code.MODEL_OUT_OF_MEMORY, _NO_MEMORY, retryable=True))
            log.exception("job %s met a bug", summary_id)
            return self._failed(record, JobFailure(Code.INTERNAL_ERROR, _INTERNAL, retryable=True))
        if self._written(control, lambda: self._store.succeed(record.id, record.generation, result)):
            self._count_success(result)
        return None

    def forget_deleted(self) -> None:
        """Let go of what was made of videos that were deleted since the last call."""
        told, self._told = self._told, self._store.forgotten()
        new = {sha256 for sha256, at in self._told.items() if told.get(sha256) != at}
        if new and (count := self._engine.vision.forget(lambda key: key[0] in new)):
            log.info("let go of the features of %d videos that were deleted", count)

    def _written(self, control: JobControl, write: Callable[[], bool]) -> bool:
        """What a job ends with is written as soon as Redis takes it: a full or read-only Redis, or one that is being
        replaced, does not cost the work. Raises RedisError after as long as two leases, or when another has the job."""
        ends_at = time.monotonic() + 2 * LEASE_SECONDS
        while True:
            try:
                return write()
            except redis.exceptions.RedisError as failure:
                if control.reason is not None or time.monotonic() > ends_at:
                    raise
                log.warning("job %s is done but can't be written yet: %s", control.job_id, failure)
                time.sleep(_WRITE_AGAIN_S)

    def _enter(self, record: SummaryRecord, control: JobControl, stage: Stage) -> None:
        """Note a stage before it begins: what kills this process in it is known by it."""
        control.report(stage)
        self._store.progress(record.id, record.generation, control.progress)

    def _begin(self, summary_id: str) -> SummaryRecord | None:
        """The record, now ours; None if there is nothing to do. From here on the job's thread logs whose it is."""
        bind_contextvars(summary_id=summary_id)
        try:
            record = self._store.start(summary_id, self._worker)
        except RecordError as damage:
            log.error("job %s is dropped, its record is kept as it is: %s", summary_id, damage)
            self._count("failed", Code.SUMMARY_UNREADABLE)
            return None
        if record is None:
            log.info("job %s has nothing left to do", summary_id)
        else:
            bind_contextvars(tenant=record.tenant, request_id=record.request_id)
        return record

    def _summarize(self, record: SummaryRecord, control: JobControl) -> SummaryResult:
        asked = record.request.domain
        if asked != AUTO_DOMAIN:
            self._desk.prefetch(asked, record.request.adapter_version)
        video, decode_s = self._decode(record, control)
        control.check()
        prompt = self._preparing.submit(self._prompts.build, video, record.request.instructions).result()
        self._enter(record, control, Stage.ADAPTER)
        began = time.monotonic()
        chosen = self._route(record, prompt)
        control.check()
        with self._desk.pinned(chosen.selected, record.request.adapter_version, control) as adapter:
            adapter_s = time.monotonic() - began
            self._enter(record, control, Stage.PREFILL)
            tracing.past("adapter", adapter_s)
            answer = self._generate(record, prompt, adapter, control)
        findings = Findings(video, decode_s, prompt, chosen, adapter, adapter_s, answer)
        return build_result(record, findings, self._origin)

    @tracing.span("decode")
    def _decode(self, record: SummaryRecord, control: JobControl) -> tuple[DecodedVideo, float]:
        """The frames, and the seconds it took to get them."""
        with self._decoding(control):
            self._enter(record, control, Stage.DECODE)
            began = time.monotonic()
            try:
                with self._blobs.local_path(record.request.blob_key) as path:
                    video = decode(
                        path,
                        self._prompts.frame_plan(),
                        self._limits,
                        cancel=control.stop,
                        on_frame=lambda done, total: control.report(Stage.DECODE, done, total),
                        on_missing=self._sandbox.note,
                    )
            except BlobMissing as missing:
                raise JobFailure(Code.VIDEO_MISSING, "The uploaded video is no longer stored.") from missing
            return video, time.monotonic() - began

    @contextmanager
    def _decoding(self, control: JobControl) -> Iterator[None]:
        """A turn at decoding, for as many videos at once as there are CPUs to do it."""
        while not self._decoders.acquire(timeout=0.1):
            control.check()
        try:
            yield
        finally:
            self._decoders.release()

    @tracing.span("route")
    def _route(self, record: SummaryRecord, prompt: Prompt) -> Route:
        domain = record.request.domain
        if domain != AUTO_DOMAIN:
            return Route(domain, {})
        features = self._engine.look(Look(prompt, key=self._vision_key(record, PinnedAdapter()))).result()
        unsound: set[str] = set()
        while True:
            marks = chain(self._general, self._desk.marks)
            chosen = route(features, (pair for pair in marks if pair[0] not in unsound))
            if chosen.selected == GENERAL_DOMAIN or self._desk.sound(chosen.selected):
                return chosen
            unsound.add(chosen.selected)

    def _vision_key(self, record: SummaryRecord, adapter: PinnedAdapter) -> Hashable:
        """All that the vision tower's features of this video depend on; and whose they are: by an answer that comes
        sooner a tenant would know that another has sent the same video."""
        return record.request.sha256, record.tenant, self._prompts.frame_plan(), adapter.vision

    def _generate(
        self, record: SummaryRecord, prompt: Prompt, adapter: PinnedAdapter, control: JobControl
    ) -> EngineAnswer:
        asked = record.request.max_new_tokens or self._default_new_tokens
        request = EngineRequest(
            prompt=prompt,
            max_new_tokens=min(asked, self._max_new_tokens),
            slot=adapter.slot,
            vision_key=self._vision_key(record, adapter),
            seed=record.request.seed,
            stop=control.stop,
            on_prefill=lambda done, total: control.report(Stage.PREFILL, done, total),
            on_token=lambda done, total: control.report(Stage.GENERATE, done, total),
        )
        answer = self._engine.submit(request).result()
        tracing.past("prefill", answer.prefill_s + answer.generate_s, answer.generate_s)
        tracing.past("generate", answer.generate_s)
        return answer

    # -- how a job ends -------------------------------------------------------------------------

    def _stopped(self, record: SummaryRecord, reason: StopReason) -> Retry | None:
        self._count(reason.value)
        log.info("job %s stopped: %s", record.id, reason.value)
        return HAND_BACK if settle(self._store, record.id, record.generation, reason) else None

    def _suspected(self, record: SummaryRecord) -> Retry | None:
        """The engine broke over this job, among others. It goes back at once, but the attempt counts, as after a crash:
        what breaks every engine is begun alone from the third time on, and ends."""
        self._count("engine_broken")
        log.warning("job %s was in the pass in which the engine broke: handed back", record.id)
        return HAND_BACK if self._store.requeue(record.id, record.generation) else None

    def _failed(self, record: SummaryRecord, failure: JobFailure) -> Retry | None:
        cause = "" if failure.__cause__ is None else f" ({failure.__cause__})"
        log.info("job %s failed: %s%s", record.id, failure, cause)
        self._count("failed", failure.code)
        error = JobError(code=failure.code, message=failure.message)
        failures = record.failures + 1
        if failure.retryable and failures < MAX_FAILURES:
            waits = self._store.requeue(record.id, record.generation, setback=error)
            return try_later(failures) if waits else None
        self._store.fail(record.id, record.generation, error)
        return None

    def _count(self, outcome: str, code: str = "") -> None:
        self._metrics.jobs.labels(outcome, code).inc()

    def _count_success(self, result: SummaryResult) -> None:
        log.info("job %s is done in %d ms", result.id, result.timings_ms.total)
        self._count("succeeded")
        metrics, timings, usage = self._metrics, result.timings_ms, result.usage
        for stage in Stage:
            metrics.observe_stage(stage, getattr(timings, stage.value) / 1000)
        metrics.observe_stage(TOTAL, timings.total / 1000)
        metrics.video_frames.inc(usage.frames)
        metrics.tokens.labels("video").inc(usage.video_tokens)
        metrics.tokens.labels("prompt").inc(usage.prompt_tokens - usage.video_tokens)
        metrics.tokens.labels("generated").inc(usage.completion_tokens)
        metrics.generating.inc(timings.generate / 1000)
        for group in ("temporal", "spatial"):
            gates = getattr(result.gates, group, None)
            for expert, weight in enumerate(gates.experts if gates is not None else ()):
                metrics.gate_weight.labels(result.domain.selected, group, str(expert)).observe(weight)
