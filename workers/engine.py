"""The engine: one thread that owns the model, and everything in flight on it.

    step    errands, then drop what was stopped, admit what waits, decode one token for all, retire what is done

Requests join and leave between steps, whatever adapters they use; nobody waits for anybody else's answer.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Literal, TypeVar

import torch

from contract.errors import Code, JobFailure
from milora import MiloraModel, Routing
from model_store.backbone import Backbone
from workers.batch import Batch, Sequence
from workers.model_pass import ModelPass
from workers.prompt import Prompt
from workers.request import EngineAnswer, EngineClosed, EngineRequest, RequestStopped
from workers.sampling import Chooser

log = logging.getLogger("visum.engine")

T = TypeVar("T")


@dataclass(frozen=True)
class EngineLimits:
    """How much may be in flight: `max_batch` requests, and `prefill_tokens` (padding included) in one prefill."""

    max_batch: int = 8
    prefill_tokens: int = 16384


class Engine:
    """Generates answers for any number of requests at once. Thread-safe; start it with `start`."""

    def __init__(self, backbone: Backbone, experts: MiloraModel | None, limits: EngineLimits) -> None:
        self._backbone = backbone
        self._pass = ModelPass(backbone.model, experts)
        self._chooser = Chooser.of(backbone.model.generation_config, backbone.device)
        self._limits = limits
        self._room = limits.max_batch
        self._waiting: deque[Sequence] = deque()
        self._batch: Batch | None = None
        self._routing: Routing | None = None
        self._errands: deque[tuple[Callable[[], object], Future[object]]] = deque()
        self._wake = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="visum-engine", daemon=True)

    # -- from any thread ------------------------------------------------------------------------

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """End the thread after its current step; whatever is unanswered fails with `EngineClosed`."""
        with self._wake:
            self._closed = True
            self._wake.notify()
        if self._thread.is_alive():
            self._thread.join()

    def submit(self, request: EngineRequest) -> "Future[EngineAnswer]":
        """Queue a request. Its future raises RequestStopped, JobFailure (model.empty_answer,
        model.out_of_memory, video.too_long) or EngineClosed in place of an answer."""
        generator = None if request.seed is None else torch.Generator().manual_seed(request.seed)
        sequence = Sequence(request, Future(), generator)
        with self._wake:
            if self._closed:
                raise EngineClosed
            self._waiting.append(sequence)
            self._wake.notify()
        return sequence.future

    def call(self, errand: Callable[[], T]) -> T:
        """Run something on the engine's thread between two steps, where nothing else touches the model."""
        future: Future[T] = Future()
        with self._wake:
            if self._closed:
                raise EngineClosed
            self._errands.append((errand, future))  # type: ignore[arg-type]
            self._wake.notify()
        return future.result()

    def video_features(self, prompt: Prompt) -> torch.Tensor:
        """(D,) pooled features of the frozen vision tower, for routing."""
        return self.call(lambda: self._pass.video_features(prompt))

    # -- on the engine's own thread -------------------------------------------------------------

    def _run(self) -> None:
        while self._await_work():
            try:
                self.step()
            except Exception as failure:  # a bug must cost the requests in flight, not the service
                log.exception("a step failed; %d requests in flight fail with it", len(self._batch or ()))
                self._fail_all(failure)
        self._fail_all(EngineClosed())
        for sequence in self._waiting:
            sequence.future.set_exception(EngineClosed())
        for _, future in self._errands:
            future.set_exception(EngineClosed())

    def _await_work(self) -> bool:
        with self._wake:
            self._wake.wait_for(lambda: self._closed or self._errands or self._waiting or self._batch)
            return not self._closed

    def step(self) -> None:
        """One turn of the engine. Public so that tests can take turns by hand."""
        self._do_errands()
        self._drop_stopped()
        self._admit()
        self._decode()

    def _do_errands(self) -> None:
        while self._errands:
            errand, future = self._errands.popleft()
            try:
                future.set_result(errand())
            except Exception as failure:
                future.set_exception(failure)

    def _drop_stopped(self) -> None:
        for sequence in list(self._waiting):
            if sequence.request.stop.is_set():
                self._waiting.remove(sequence)
                sequence.future.set_exception(RequestStopped())
        if self._batch is not None:
            for sequence in self._batch.sequences:
                if sequence.request.stop.is_set():
                    sequence.future.set_exception(RequestStopped())
            self._keep_undone()

    def _admit(self) -> None:
        """Prefill what waits, as far as there is room."""
        while self._waiting and len(self._batch or ()) < self._room:
            group = self._next_group()
            try:
                if not group or not self._prefill(group):
                    return
            except Exception as failure:  # nobody else would answer those that are not in flight yet
                _fail(group, failure)
                raise

    def _next_group(self) -> list[Sequence]:
        """The requests at the head of the line that fit into the free rows and into one prefill."""
        free = self._room - len(self._batch or ())
        group: list[Sequence] = []
        longest = 0
        while self._waiting and len(group) < free:
            longest = max(longest, self._waiting[0].request.prompt.tokens)
            if group and longest * (len(group) + 1) > self._limits.prefill_tokens:
                break
            sequence = self._waiting.popleft()
            if self._fits_context(sequence):
                group.append(sequence)
        return group

    def _fits_context(self, sequence: Sequence) -> bool:
        limit = self._backbone.model.config.text_config.max_position_embeddings
        if sequence.request.prompt.tokens < limit:
            return True
        message = f"The video makes {sequence.request.prompt.tokens} tokens, the model reads {limit} at most."
        sequence.future.set_exception(JobFailure(Code.VIDEO_TOO_LONG, message))
        return False

    def _prefill(self, group: list[Sequence]) -> bool:
        """Run the prompts of a group and let it join; False if memory is short and it has to wait."""
        began = time.monotonic()
        for sequence in group:
            sequence.prefill_began = began
            sequence.request.on_prefill(0, sequence.request.prompt.tokens)
        try:
            batch, logits = self._pass.prefill(group)
        except torch.OutOfMemoryError:
            return self._split(group)
        except Exception as failure:
            log.exception("a prefill of %d requests failed", len(group))
            for sequence in group:
                sequence.future.set_exception(failure)
            return True
        self._extend(batch, logits)
        for sequence in group:
            sequence.prefill_ended = time.monotonic()
            sequence.request.on_prefill(sequence.request.prompt.tokens, sequence.request.prompt.tokens)
        if self._batch is None:
            self._batch = batch
        else:
            self._batch.join(batch)
        self._routing = None
        self._keep_undone()
        return True

    def _split(self, group: list[Sequence]) -> bool:
        """Out of memory in a prefill: try the halves one after the other; a single one waits for the others in
        flight to end, and has to give up when it is alone already."""
        self._free_memory()
        if len(group) > 1:
            half = len(group) // 2
            if self._prefill(group[:half]):
                return self._prefill(group[half:])
            self._waiting.extendleft(reversed(group[half:]))
            return False
        if self._batch is not None:
            self._waiting.appendleft(group[0])
            return False
        message = "The machine has too little memory for this video, even on its own."
        group[0].future.set_exception(JobFailure(Code.MODEL_OUT_OF_MEMORY, message))
        return True

    def _decode(self) -> None:
        if self._batch is None:
            return
        if self._routing is None:
            self._routing = self._pass.reuse(self._batch.sequences)
        length = self._batch.length
        try:
            logits = self._pass.decode_step(self._batch, self._routing)
        except torch.OutOfMemoryError:
            self._shed(length)
            return
        self._extend(self._batch, logits)
        self._keep_undone()

    def _shed(self, length: int) -> None:
        """Out of memory in a decode step: the newer half starts again later, with less in flight from now on."""
        assert self._batch is not None
        self._free_memory()
        sequences = self._batch.sequences
        if len(sequences) == 1:
            message = "The machine has too little memory to finish this answer."
            self._fail_all(JobFailure(Code.MODEL_OUT_OF_MEMORY, message))
            return
        kept = (len(sequences) + 1) // 2
        log.warning("out of memory with %d requests in flight, going on with %d", len(sequences), kept)
        for sequence in sequences[kept:]:
            sequence.restart()
        self._waiting.extendleft(reversed(sequences[kept:]))
        self._room = kept
        self._batch.rewind(length)
        self._keep(list(range(kept)))

    def _extend(self, batch: Batch, logits: torch.Tensor) -> None:
        """Give every row its next token. logits (B, V)."""
        for sequence, row in zip(batch.sequences, logits, strict=True):
            token = self._chooser.choose(sequence, row)
            sequence.generated.append(token)
            done = self._finish_reason(sequence)
            if done is not None:
                self._retire(sequence, done)
            sequence.request.on_token(len(sequence.generated), sequence.request.max_new_tokens)

    def _finish_reason(self, sequence: Sequence) -> Literal["stop", "length"] | None:
        if sequence.generated[-1] in self._chooser.stop_ids:
            return "stop"
        limit = self._backbone.model.config.text_config.max_position_embeddings
        full = sequence.request.prompt.tokens + len(sequence.generated) >= limit
        return "length" if full or len(sequence.generated) >= sequence.request.max_new_tokens else None

    def _retire(self, sequence: Sequence, reason: Literal["stop", "length"]) -> None:
        ids = sequence.generated[:-1] if reason == "stop" else sequence.generated
        text = self._backbone.processor.tokenizer.decode(ids, skip_special_tokens=True).strip()
        if not text:
            failure = JobFailure(Code.MODEL_EMPTY_ANSWER, "The model had nothing to say about this video.")
            sequence.future.set_exception(failure)
            return
        now = time.monotonic()
        ended = sequence.prefill_ended or now
        answer = EngineAnswer(
            text=text,
            token_ids=tuple(ids),
            finish_reason=reason,
            gates=sequence.gates if sequence.request.slot else None,
            completion_tokens=len(sequence.generated),
            waited_s=sequence.prefill_began - sequence.submitted,
            prefill_s=ended - sequence.prefill_began,
            generate_s=now - ended,
        )
        sequence.future.set_result(answer)

    def _keep_undone(self) -> None:
        """Let the rows leave whose future is settled."""
        if self._batch is not None:
            undone = [row for row, sequence in enumerate(self._batch.sequences) if not sequence.future.done()]
            if len(undone) < len(self._batch):
                self._keep(undone)

    def _keep(self, rows: list[int]) -> None:
        assert self._batch is not None
        self._routing = None
        if rows:
            self._batch.keep(rows)
            return
        self._batch = None
        self._room = self._limits.max_batch  # memory is free again

    def _fail_all(self, failure: Exception) -> None:
        _fail(self._batch.sequences if self._batch is not None else [], failure)
        self._batch = None
        self._routing = None
        self._room = self._limits.max_batch

    @staticmethod
    def _free_memory() -> None:
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def _fail(sequences: list[Sequence], failure: Exception) -> None:
    for sequence in sequences:
        if not sequence.future.done():
            sequence.future.set_exception(failure)
