"""The engine: everything in flight on the model, and the threads that move it.

    prefill    look at videos, run the prompts of those at the head of the line that there are rows for
    decode     let the prefilled ones join, drop what was stopped, one token for everybody in flight

The two run at the same time, or in turns where one of them fills all cores: neither starves. Requests join and
leave between decode steps, whatever adapters they use; nobody waits for anybody else's answer.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Literal

import torch

from contract.errors import Code, JobFailure
from milora import Arrangement, MiloraModel
from model_store.backbone import Backbone
from workers.memory_plan import cache_budget, head_width, out_of_memory, plan_cache
from workers.prefill import Look, Prefill, Prefilled
from workers.request import EngineAnswer, EngineClosed, EngineRequest, RequestStopped
from workers.sampling import Chooser
from workers.sequence import Sequence
from workers.slot_cache import SlotCache
from workers.token_step import TokenStep
from workers.vision_cache import VisionCache

log = logging.getLogger("visum.engine")

_PATCHES_PER_TOKEN = 4
"""What the tower may read in one pass for every token of a prefill: as many patches are merged into one."""

_SMALL_MODEL = 50_000_000
"""Parameters up to which a decode step on the CPU is faster in one thread beside other work than in several."""


@dataclass(frozen=True)
class EngineLimits:
    """How much may be in flight.

    `max_batch` requests of `row_tokens` tokens each, prompt and answer (None: as many as the backbone reads);
    `prefill_tokens` (padding included) in one prefill; `vision_cache_bytes` of features of videos seen before.
    Memory may allow less of the first two: they are planned when the engine is made.
    """

    max_batch: int = 8
    prefill_tokens: int = 16384
    row_tokens: int | None = None
    vision_cache_bytes: int = 256 << 20


class Engine:
    """Generates answers for any number of requests at once. Thread-safe; start it with `start`.

    While it lives, the A and B of the experts in the language model are views into its step's stacks.

    `tensor_threads` is for a large model on the CPU: how many threads each of its operations takes, None for as many
    as torch takes by itself. They spin from one operation to the next only where no other thread of the process has
    tensor threads too: the OpenMP runtime sends all of them to sleep when there are more than cores.
    """

    def __init__(
        self,
        backbone: Backbone,
        experts: MiloraModel | None,
        limits: EngineLimits,
        *,
        tensor_threads: int | None = None,
    ) -> None:
        self._backbone, self._limits = backbone, limits
        self._device = backbone.device
        self._cache = _planned_cache(backbone, limits)
        self._token_step = TokenStep(backbone.model, self._cache, experts)
        self.vision = VisionCache(limits.vision_cache_bytes)
        self._prefill = Prefill(backbone.model, experts, self.vision)
        self._chooser = Chooser.of(backbone.model.generation_config)
        #: Who is in flight; a sequence's place in the list is its row in cache, tokens and positions.
        self._rows: list[Sequence] = []
        self._tokens = torch.zeros(self._cache.rows, dtype=torch.long, device=self._device)
        self._positions = torch.zeros_like(self._tokens)
        self._arranged: Arrangement | None = None
        self._rows_changed = False
        self._room = self._cache.rows
        self._looks: deque[tuple[Look, Future[torch.Tensor]]] = deque()
        self._waiting: deque[Sequence] = deque()
        self._prefilling: list[Sequence] = []
        self._ready: deque[tuple[list[Sequence], Prefilled]] = deque()
        #: A prefill ran out of memory beside so many rows: the next one waits until there are fewer.
        self._too_many_rows: int | None = None
        #: Guards who is where: waiting, prefilling, ready, in a row. Told whenever somebody moves.
        self._moved = threading.Condition()
        self._closed = False
        turns = (
            [self._run_in_turns] if _fills_the_cores(backbone) else [self._run_prefills, self._run_decoding]
        )
        self._threads = [threading.Thread(target=turn, name="visum-engine", daemon=True) for turn in turns]
        self._tensor_threads = tensor_threads or torch.get_num_threads()

    # -- from any thread ------------------------------------------------------------------------

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """End the threads after their current pass; whatever is unanswered fails with `EngineClosed`."""
        with self._moved:
            self._closed = True
            self._moved.notify_all()
        for thread in self._threads:
            if thread.is_alive():
                thread.join()
        _fail([*self._waiting, *self._prefilled(), *self._rows], EngineClosed())
        for _, future in self._looks:
            future.set_exception(EngineClosed())

    @property
    def room(self) -> int:
        """How many requests can be in flight now: fewer while memory is short."""
        return self._room

    @property
    def in_flight(self) -> int:
        return len(self._rows)

    def submit(self, request: EngineRequest) -> "Future[EngineAnswer]":
        """Queue a request. Its future raises RequestStopped, JobFailure (model.empty_answer,
        model.out_of_memory, video.too_long) or EngineClosed in place of an answer."""
        return self.submit_all([request])[0]

    def submit_all(self, requests: list[EngineRequest]) -> "list[Future[EngineAnswer]]":
        """Queue several requests in one piece: the next prefill finds all of them."""
        sequences = [Sequence.of(request) for request in requests]
        with self._moved:
            if self._closed:
                raise EngineClosed
            self._waiting.extend(sequences)
            self._moved.notify_all()
        return [sequence.future for sequence in sequences]

    def look(self, look: Look) -> "Future[torch.Tensor]":
        """(D,) pooled features that the vision tower makes of a video; waiting ones are looked at together."""
        future: Future[torch.Tensor] = Future()
        with self._moved:
            if self._closed:
                raise EngineClosed
            self._looks.append((look, future))
            self._moved.notify_all()
        return future

    # -- the threads ----------------------------------------------------------------------------

    def _run_in_turns(self) -> None:
        _take_tensor_threads(self._tensor_threads)
        while self._await(lambda: self._looks or self._waiting or self._ready or self._rows):
            self._try_prefill()
            self._try_decode()

    def _run_prefills(self) -> None:
        self._share_the_cores()
        while self._await(lambda: self._looks or self._admissible()):
            self._try_prefill()

    def _run_decoding(self) -> None:
        self._share_the_cores()
        while self._await(lambda: self._rows or self._ready):
            self._try_decode()

    def _share_the_cores(self) -> None:
        """Of two threads on the CPU each takes one core: a small model's products are over before a second tensor
        thread has begun, and where cores are taken every operation would wait for it."""
        if self._device.type == "cpu":
            _take_tensor_threads(1)

    def _try_prefill(self) -> None:
        try:
            self.prefill()
        except Exception:  # a bug must cost the requests at hand, which have been told, not the service
            log.exception("a prefill failed")

    def _try_decode(self) -> None:
        try:
            self.decode()
        except Exception as failure:
            log.exception("a step failed; %d requests in flight fail with it", len(self._rows))
            self._fail_all(failure)

    def _await(self, work: Callable[[], object]) -> bool:
        """Wait for work; False when the engine is closed."""
        with self._moved:
            self._moved.wait_for(lambda: self._closed or work())
            return not self._closed

    def step(self) -> None:
        """One turn of each thread. Public so that tests can take turns by hand."""
        self.prefill()
        self.decode()

    @torch.no_grad()
    def prefill(self) -> None:
        """Look at the videos that are to be routed, and prefill what may join."""
        self._look()
        self._drop_stopped_waiting()
        group = self._next_group()
        if not group:
            return
        try:
            self._put_back(self._prefill_group(group))
        except Exception as failure:  # nobody else would answer those that have not got through
            with self._moved:
                at_hand, self._prefilling = self._prefilling, []
            _fail(at_hand, failure)
            raise

    @torch.no_grad()
    def decode(self) -> None:
        """Let the prefilled ones join, drop what was stopped, and take one step."""
        self._drop_stopped_waiting()
        self._join_ready()
        for sequence in self._rows:
            if sequence.request.stop.is_set():
                sequence.future.set_exception(RequestStopped())
        self._close_up()
        self._take_step()

    # -- prefill --------------------------------------------------------------------------------

    def _look(self) -> None:
        """All videos that are to be looked at, as far as they fit into one pass."""
        group, patches = [], 0
        while self._looks:
            patches += self._looks[0][0].prompt.patches
            if group and patches > self._limits.prefill_tokens * _PATCHES_PER_TOKEN:
                break
            group.append(self._looks.popleft())
        if not group:
            return
        try:
            seen = self._prefill.see([look for look, _ in group])
        except Exception as failure:
            if out_of_memory(failure):
                self._look_one_by_one(group)
                return
            log.exception("looking at %d videos failed", len(group))
            for _, future in group:
                future.set_exception(failure)
            return
        for (_, future), video in zip(group, seen, strict=True):
            future.set_result(video.pooled)

    def _look_one_by_one(self, group: "list[tuple[Look, Future[torch.Tensor]]]") -> None:
        """Out of memory over some videos: one after the other; a single one is too large."""
        self._free_memory()
        for look, future in group:
            try:
                future.set_result(self._prefill.see([look])[0].pooled)
            except Exception as failure:
                short = out_of_memory(failure)
                message = "The machine has too little memory for this video, even on its own."
                future.set_exception(JobFailure(Code.MODEL_OUT_OF_MEMORY, message) if short else failure)

    def _drop_stopped_waiting(self) -> None:
        with self._moved:
            stopped = [sequence for sequence in self._waiting if sequence.request.stop.is_set()]
            for sequence in stopped:
                self._waiting.remove(sequence)
        _fail(stopped, RequestStopped())

    def _prefilled(self) -> list[Sequence]:
        """Those that are on their way from the line to a row."""
        return [*self._prefilling, *(sequence for group, _ in self._ready for sequence in group)]

    def _admissible(self) -> int:
        """How many of the waiting there are rows for now."""
        taken = len(self._rows) + len(self._prefilled())
        if self._too_many_rows is not None and taken >= self._too_many_rows:
            return 0
        return min(len(self._waiting), max(0, self._room - taken))

    def _next_group(self) -> list[Sequence]:
        """The requests at the head of the line that fit into the free rows and into one pass."""
        group: list[Sequence] = []
        longest = patches = 0
        with self._moved:
            free = self._admissible()
            self._too_many_rows = None if free else self._too_many_rows
            while self._waiting and len(group) < free:
                prompt = self._waiting[0].request.prompt
                longest, patches = max(longest, prompt.tokens), patches + prompt.patches
                tokens = max(longest * (len(group) + 1), patches / _PATCHES_PER_TOKEN)
                if group and tokens > self._limits.prefill_tokens:
                    break
                sequence = self._waiting.popleft()
                if self._fits_a_row(sequence):
                    group.append(sequence)
            self._prefilling = list(group)
        return group

    def _fits_a_row(self, sequence: Sequence) -> bool:
        tokens, limit = sequence.request.prompt.tokens, self._cache.length
        if tokens < limit:
            return True
        message = f"The video makes {tokens} tokens, the model reads {limit} at most."
        sequence.future.set_exception(JobFailure(Code.VIDEO_TOO_LONG, message))
        return False

    def _prefill_group(self, group: list[Sequence]) -> list[Sequence]:
        """Run the prompts of a group; returns those that have to wait because memory is short."""
        began = time.monotonic()
        for sequence in group:
            sequence.prefill_began = began
            sequence.request.on_prefill(0, sequence.request.prompt.tokens)
        looks = [Look(s.request.prompt, s.request.slot, s.request.vision_key) for s in group]
        try:
            prefilled = self._prefill(looks)
        except Exception as failure:
            if not out_of_memory(failure):
                raise
            return self._split(group)
        for sequence, gates in zip(group, prefilled.gates, strict=True):
            sequence.gates = gates
            sequence.prefill_ended = time.monotonic()
            sequence.request.on_prefill(sequence.request.prompt.tokens, sequence.request.prompt.tokens)
        with self._moved:
            self._prefilling = [sequence for sequence in self._prefilling if sequence not in group]
            self._ready.append((group, prefilled))
            self._moved.notify_all()
        return []

    def _split(self, group: list[Sequence]) -> list[Sequence]:
        """Out of memory in a prefill: try the halves one after the other; a single one waits for the others in
        flight to end, and has to give up when it is alone already."""
        self._free_memory()
        if len(group) > 1:
            half = len(group) // 2
            late = self._prefill_group(group[:half])
            return [*late, *group[half:]] if late else self._prefill_group(group[half:])
        with self._moved:
            if self._rows or self._ready:
                return group
            self._prefilling = [sequence for sequence in self._prefilling if sequence not in group]
        message = "The machine has too little memory for this video, even on its own."
        group[0].future.set_exception(JobFailure(Code.MODEL_OUT_OF_MEMORY, message))
        return []

    def _put_back(self, late: list[Sequence]) -> None:
        """Back to the head of the line, until fewer rows are taken."""
        with self._moved:
            self._prefilling = []
            if late:
                self._waiting.extendleft(reversed(late))
                taken = len(self._rows) + len(self._prefilled())
                self._too_many_rows = max(1, taken)  # they may be gone by now: an empty batch is always tried

    # -- decode ---------------------------------------------------------------------------------

    def _join_ready(self) -> None:
        """Give the prefilled requests their rows, and their first token."""
        while self._ready:
            group, prefilled = self._ready[0]
            first = len(self._rows)
            try:
                for index, sequence in enumerate(group):
                    self._fill_row(first + index, sequence, prefilled, index)
            except Exception as failure:  # as when a gate is missing: the others in flight go on
                log.exception("%d prefilled requests could not join", len(group))
                with self._moved:
                    self._ready.popleft()
                    self._moved.notify_all()
                _fail(group, failure)
                continue
            with self._moved:
                self._ready.popleft()
                self._rows.extend(group)
            self._rows_changed = True
            self._extend(first, prefilled.logits)
            self._close_up()

    def _fill_row(self, row: int, sequence: Sequence, prefilled: Prefilled, index: int) -> None:
        tokens = sequence.request.prompt.tokens
        self._cache.fill(row, prefilled.cache, index, tokens)
        self._positions[row] = tokens
        if self._token_step.experts is not None:
            self._token_step.experts.join(row, sequence.gates)

    def _take_step(self) -> None:
        """One token for every row."""
        count = len(self._rows)
        if count == 0:
            return
        try:
            if self._rows_changed:
                self._arrange()
            logits = self._token_step(
                self._tokens[:count], self._positions[:count], self._span(), self._arranged
            )
        except Exception as failure:
            if not out_of_memory(failure):
                raise
            self._shed()
            return
        self._positions[:count] += 1
        self._extend(0, logits)
        self._close_up()

    def _arrange(self) -> None:
        """Group the rows by adapter; needed once whenever rows have come or gone."""
        if self._token_step.experts is not None:
            slots = [0 if s.gates is None else s.gates.slot for s in self._rows]
            self._arranged = self._token_step.experts.arrange(slots)
        self._rows_changed = False

    def _span(self) -> int:
        """How many positions the next step has to look at."""
        return max(s.request.prompt.tokens + len(s.generated) for s in self._rows)

    def _shed(self) -> None:
        """Out of memory in a decode step: the newer half starts again later, with less in flight from now on; a single
        row too, if a prefill took the memory."""
        self._free_memory()
        with self._moved:
            alone = len(self._rows) == 1 and not self._prefilled()
        if alone:
            message = "The machine has too little memory to finish this answer."
            self._fail_all(JobFailure(Code.MODEL_OUT_OF_MEMORY, message))
            return
        by_age = sorted(self._rows, key=lambda sequence: sequence.submitted)
        kept = (len(by_age) + 1) // 2 if len(by_age) > 1 else 0
        log.warning("out of memory with %d requests in flight, going on with %d", len(by_age), kept)
        with self._moved:
            self._room = max(1, kept)
            for sequence in by_age[kept:]:
                sequence.restart()
                self._leave(self._rows.index(sequence))
            self._waiting.extendleft(reversed(by_age[kept:]))

    def _extend(self, first: int, logits: torch.Tensor) -> None:
        """Give every row from `first` on its next token. logits (B, V)."""
        sequences = self._rows[first:]
        chosen = self._chooser.choose(sequences, logits)  # (B,)
        self._tokens[first : first + len(sequences)] = chosen
        for sequence, token in zip(sequences, chosen.tolist(), strict=True):
            sequence.generated.append(token)
            done = self._finish_reason(sequence)
            if done is not None:
                self._retire(sequence, done)
            sequence.request.on_token(len(sequence.generated), sequence.request.max_new_tokens)

    def _finish_reason(self, sequence: Sequence) -> Literal["stop", "length"] | None:
        if sequence.generated[-1] in self._chooser.stop_ids:
            return "stop"
        full = sequence.request.prompt.tokens + len(sequence.generated) >= self._cache.length
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
            gates=sequence.gates,
            completion_tokens=len(sequence.generated),
            waited_s=sequence.prefill_began - sequence.submitted,
            prefill_s=ended - sequence.prefill_began,
            generate_s=now - ended,
        )
        sequence.future.set_result(answer)

    def _close_up(self) -> None:
        """Let the rows leave whose future is settled."""
        for row in reversed(range(len(self._rows))):
            if self._rows[row].future.done():
                self._leave(row)

    def _leave(self, row: int) -> None:
        """Free a row; the last one moves into its place."""
        last = len(self._rows) - 1
        if row != last:
            sequence = self._rows[row] = self._rows[last]
            self._cache.move(last, row, sequence.request.prompt.tokens + len(sequence.generated))
            self._tokens[row] = self._tokens[last]
            self._positions[row] = self._positions[last]
            if self._token_step.experts is not None:
                self._token_step.experts.move(last, row)
        with self._moved:
            self._rows.pop()
            if not self._rows:
                self._room = self._cache.rows  # memory is free again
            self._moved.notify_all()
        self._rows_changed = True

    def _fail_all(self, failure: Exception) -> None:
        _fail(self._rows, failure)
        with self._moved:
            self._rows.clear()
            self._room = self._cache.rows
            self._moved.notify_all()

    def _free_memory(self) -> None:
        self.vision.clear()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def _fills_the_cores(backbone: Backbone) -> bool:
    """Whether one pass has work for all cores, so that two at a time would only wait for each other's threads."""
    parameters = sum(parameter.numel() for parameter in backbone.model.parameters())
    return backbone.device.type == "cpu" and parameters > _SMALL_MODEL


def _take_tensor_threads(count: int) -> None:
    """How many threads this thread's own operations take.

    Asking comes first: a thread that has not asked yet takes the number that any thread has set last, at its first
    operation.
    """
    torch.get_num_threads()
    torch.set_num_threads(count)


def _planned_cache(backbone: Backbone, limits: EngineLimits) -> SlotCache:
    """The cache for as much of the limits as the memory that is free now allows."""
    config = backbone.model.config.text_config
    plan = plan_cache(
        config,
        backbone.dtype,
        rows=limits.max_batch,
        length=limits.row_tokens or config.max_position_embeddings,
        budget=cache_budget(backbone.device),
    )
    return SlotCache(
        layers=config.num_hidden_layers,
        rows=plan.rows,
        length=plan.length,
        heads=config.num_key_value_heads,
        head_width=head_width(config),
        dtype=backbone.dtype,
        device=backbone.device,
    )


def _fail(sequences: list[Sequence], failure: Exception) -> None:
    for sequence in sequences:
        if not sequence.future.done():
            sequence.future.set_exception(failure)
