"""The rows in flight: how requests join, get one token after the other, and leave.

B rows in use, the first ones of the cache   V vocabulary   T positions looked at
"""

import logging
import time
from collections.abc import Callable
from typing import Literal

import torch

from contract.errors import Code, JobFailure
from milora import Arrangement
from model_store.backbone import Backbone
from workers.line import Line, fail
from workers.memory_plan import out_of_memory
from workers.prefill import Prefilled
from workers.request import EngineAnswer, RequestStopped
from workers.sampling import Chooser
from workers.sequence import Sequence
from workers.token_step import TokenStep

log = logging.getLogger("visum.engine")


class Rows:
    """Takes decode steps over the rows of one line. `free_memory` lets go of what can be made again."""

    def __init__(
        self, line: Line, backbone: Backbone, token_step: TokenStep, free_memory: Callable[[], None]
    ) -> None:
        self._line = line
        self._tokenizer = backbone.processor.tokenizer
        self._token_step, self._cache = token_step, token_step.cache
        self._free_memory = free_memory
        self.chooser = Chooser.of(backbone.model.generation_config)
        self._tokens = torch.zeros(self._cache.rows, dtype=torch.long, device=backbone.device)
        self._positions = torch.zeros_like(self._tokens)
        self._arranged: Arrangement | None = None
        self._changed = False

    def join_ready(self) -> None:
        """Give the prefilled requests their rows, and their first token."""
        line = self._line
        while line.ready:
            group, prefilled = line.ready[0]
            first = len(line.rows)
            try:
                for index, sequence in enumerate(group):
                    self._fill(first + index, sequence, prefilled, index)
            except Exception as failure:  # as when a gate is missing: the others in flight go on
                log.exception("%d prefilled requests could not join", len(group))
                with line.moved:
                    line.ready.popleft()
                    line.moved.notify_all()
                fail(group, failure)
                continue
            with line.moved:
                line.ready.popleft()
                line.rows.extend(group)
            self._changed = True
            self._extend(first, prefilled.logits)
            self._close_up()

    def _fill(self, row: int, sequence: Sequence, prefilled: Prefilled, index: int) -> None:
        tokens = sequence.request.prompt.tokens
        self._cache.fill(row, prefilled.cache, index, tokens)
        self._positions[row] = tokens
        if self._token_step.experts is not None:
            self._token_step.experts.join(row, sequence.gates)

    def drop_stopped(self) -> None:
        """Let those leave that were stopped."""
        for sequence in self._line.rows:
            if sequence.request.stop.is_set():
                sequence.future.set_exception(RequestStopped())
        self._close_up()

    def step(self) -> None:
        """One token for every row."""
        count = len(self._line.rows)
        if count == 0:
            return
        if self._changed:
            self._arrange()
        try:
            logits = self._token_step(
                self._tokens[:count], self._positions[:count], self._span(), self._arranged
            )
        except Exception as failure:
            if not out_of_memory(failure):
                raise
            self.shed()
            return
        self._positions[:count] += 1
        self._extend(0, logits)
        self._close_up()

    def _arrange(self) -> None:
        """Group the rows by adapter; needed once whenever rows have come or gone."""
        if self._token_step.experts is not None:
            slots = [0 if s.gates is None else s.gates.slot for s in self._line.rows]
            self._arranged = self._token_step.experts.arrange(slots)
        self._changed = False

    def _span(self) -> int:
        """How many positions the next step has to look at."""
        return max(s.request.prompt.tokens + len(s.generated) for s in self._line.rows)

    def shed(self) -> None:
        """Out of memory in a decode step: the newer half starts again later, with less in flight from now on; a single
        row too, if a prefill took the memory."""
        self._free_memory()
        line = self._line
        with line.moved:
            alone = len(line.rows) == 1 and not line.prefilled
        if alone:
            message = "The machine has too little memory to finish this answer."
            self.fail_all(JobFailure(Code.MODEL_OUT_OF_MEMORY, message))
            return
        by_age = sorted(line.rows, key=lambda sequence: sequence.submitted)
        kept = (len(by_age) + 1) // 2 if len(by_age) > 1 else 0
        log.warning("out of memory with %d requests in flight, going on with %d", len(by_age), kept)
        with line.moved:
            line.room = max(1, kept)
            for sequence in by_age[kept:]:
                sequence.restart()
                self._leave(line.rows.index(sequence))
            line.waiting.extendleft(reversed(by_age[kept:]))

    def _extend(self, first: int, logits: torch.Tensor) -> None:
        """Give every row from `first` on its next token. logits (B, V)."""
        sequences = self._line.rows[first:]
        chosen = self.chooser.choose(sequences, logits)  # (B,)
        self._tokens[first : first + len(sequences)] = chosen
        for sequence, token in zip(sequences, chosen.tolist(), strict=True):
            sequence.generated.append(token)
            done = self._finish_reason(sequence)
            if done is not None:
                self._retire(sequence, done)
            sequence.request.on_token(len(sequence.generated), sequence.request.max_new_tokens)

    def _finish_reason(self, sequence: Sequence) -> Literal["stop", "length"] | None:
        if sequence.generated[-1] in self.chooser.stop_ids:
            return "stop"
        full = sequence.request.prompt.tokens + len(sequence.generated) >= self._cache.length
        return "length" if full or len(sequence.generated) >= sequence.request.max_new_tokens else None

    def _retire(self, sequence: Sequence, reason: Literal["stop", "length"]) -> None:
        ids = sequence.generated[:-1] if reason == "stop" else sequence.generated
        text = self._tokenizer.decode(ids, skip_special_tokens=True).strip()
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
        for row in reversed(range(len(self._line.rows))):
            if self._line.rows[row].future.done():
                self._leave(row)

    def _leave(self, row: int) -> None:
        """Free a row; the last one moves into its place."""
        rows = self._line.rows
        last = len(rows) - 1
        if row != last:
            sequence = rows[row] = rows[last]
            self._cache.move(last, row, sequence.request.prompt.tokens + len(sequence.generated))
            self._tokens[row] = self._tokens[last]
            self._positions[row] = self._positions[last]
            if self._token_step.experts is not None:
                self._token_step.experts.move(last, row)
        with self._line.moved:
            rows.pop()
            if not rows:
                self._line.room = self._cache.rows  # memory is free again
            self._line.moved.notify_all()
        self._changed = True

    def fail_all(self, failure: Exception) -> None:
        """Whoever is in flight fails with this."""
        fail(self._line.rows, failure)
        with self._line.moved:
            self._line.rows.clear()
            self._line.room = self._cache.rows
            self._line.moved.notify_all()
