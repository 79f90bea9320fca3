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
from workers.health import Health, out_of_memory
from workers.line import Line, fail
from workers.prefill import Prefilled
from workers.request import EngineAnswer, RequestStopped
from workers.sampling import NOT_FINITE, Chooser, Sampling
from workers.sequence import Sequence
from workers.token_step import TokenStep

log = logging.getLogger("visum.engine")


_NO_MEMORY = "The machine has too little memory to finish this answer."


class Rows:
    """Takes decode steps over the rows of one line. `free_memory` lets go of what can be made again.

    It is called after the `except` of a failed pass, never in it: there the failure keeps the pass's tensors alive.
    """

    def __init__(
        self,
        line: Line,
        backbone: Backbone,
        token_step: TokenStep,
        health: Health,
        free_memory: Callable[[], None],
    ) -> None:
        self._line = line
        self._tokenizer = backbone.processor.tokenizer
        self._token_step, self._cache = token_step, token_step.cache
        self._health = health
        self._free_memory = free_memory
        self.chooser = Chooser(
            Sampling.of(backbone.model.generation_config),
            rows=self._cache.rows,
            length=self._cache.length,
            device=backbone.device,
        )
        self._tokens = torch.zeros(self._cache.rows, dtype=torch.long, device=backbone.device)
        self._positions = torch.zeros_like(self._tokens)
        self._arranged: Arrangement | None = None
        self._changed = False

    def join_ready(self) -> None:
        """Give the prefilled requests their rows, and their first token."""
        line = self._line
        while line.ready:
            group, prefilled = line.ready[0]
            first, told, chosen = len(line.rows), None, None
            try:
                for index, sequence in enumerate(group):
                    self._fill(first + index, sequence, prefilled, index)
                chosen = self._choose(group, first, prefilled.logits)
            except Exception as failure:  # as when a gate is missing: the others in flight go on
                if not out_of_memory(failure):
                    log.exception("%d prefilled requests could not join", len(group))
                    told = self._health.judge(failure)
            del prefilled
            with line.moved:
                line.ready.popleft()
                if chosen is not None:
                    line.rows.extend(group)
                line.moved.notify_all()
            if chosen is not None:
                self._changed = True
                self._extend(group, first, *chosen)
            elif told is not None:
                fail(group, told)
            else:
                self._postpone(group)

    def _fill(self, row: int, sequence: Sequence, prefilled: Prefilled, index: int) -> None:
        prompt = sequence.request.prompt
        self._cache.fill(row, prefilled.cache, index, prompt.tokens)
        self._positions[row] = prompt.tokens
        self.chooser.join(row, prompt.input_ids)
        if self._token_step.experts is not None:
            self._token_step.experts.join(row, sequence.gates)

    def _postpone(self, group: list[Sequence]) -> None:
        """Out of memory when a group was to join: it starts again with fewer beside it, or gives up when it is one
        request, alone."""
        self._free_memory()
        line = self._line
        with line.moved:
            alone = len(group) == 1 and not line.rows and not line.prefilled
            if not alone:
                line.shrink(len(line.rows) + len(group) // 2)
                line.start_again(group)
        if alone:
            fail(group, JobFailure(Code.MODEL_OUT_OF_MEMORY, _NO_MEMORY))

    def drop_stopped(self) -> None:
        """Let those leave that were stopped."""
        fail([s for s in self._line.rows if s.request.stop.is_set()], RequestStopped())
        self._close_up()

    def step(self) -> None:
        """One token for every row."""
        rows = self._line.rows
        if not rows:
            return
        try:
            chosen = self._next_tokens()
        except Exception as failure:
            if not out_of_memory(failure):
                raise
            chosen = None
        if chosen is None:
            self.shed()
            return
        self._positions[: len(rows)] += 1
        self._extend(rows, 0, *chosen)

    def _next_tokens(self) -> tuple[torch.Tensor, list[int]]:
        """What follows in every row, on the device and here."""
        rows = self._line.rows
        if self._changed:
            self._arrange()
        tokens, positions = self._tokens[: len(rows)], self._positions[: len(rows)]  # (B,) each
        span = max(s.request.prompt.tokens + len(s.generated) for s in rows)  # T
        logits = self._token_step(tokens, positions, span, self._arranged)  # (B, V)
        return self._choose(rows, 0, logits)

    def _arrange(self) -> None:
        """Group the rows by adapter; needed once whenever rows have come or gone."""
        if self._token_step.experts is not None:
            slots = [0 if s.gates is None else s.gates.slot for s in self._line.rows]
            self._arranged = self._token_step.experts.arrange(slots)
        self._changed = False

    def _choose(
        self, sequences: list[Sequence], first: int, logits: torch.Tensor
    ) -> tuple[torch.Tensor, list[int]]:
        """The next tokens (B,) of the rows from `first` on. Here a step waits for the device, once.

        Raises:
            FloatingPointError: no row's logits (B, V) are finite: it is the pass that failed, not a request.
        """
        chosen = self.chooser.choose(sequences, first, logits)
        tokens = chosen.tolist()
        if all(token == NOT_FINITE for token in tokens):
            raise FloatingPointError(f"the logits of {len(tokens)} rows are not finite")
        return chosen, tokens

    def shed(self) -> None:
        """Out of memory in a decode step: the newer half starts again later, with less in flight from now on; a single
        row too, if a prefill took the memory."""
        self._free_memory()
        line = self._line
        with line.moved:
            alone = len(line.rows) == 1 and not line.prefilled
        if alone:
            self.fail_all(JobFailure(Code.MODEL_OUT_OF_MEMORY, _NO_MEMORY))
            return
        by_age = sorted(line.rows, key=lambda sequence: sequence.submitted)
        kept = (len(by_age) + 1) // 2 if len(by_age) > 1 else 0
        log.warning("out of memory with %d requests in flight, going on with %d", len(by_age), kept)
        with line.moved:
            for sequence in by_age[kept:]:
                self._leave(line.rows.index(sequence))
            line.shrink(kept)
            line.start_again(by_age[kept:])

    def _extend(self, sequences: list[Sequence], first: int, chosen: torch.Tensor, tokens: list[int]) -> None:
        """Give the rows from `first` on their next tokens, and let those leave that have their answer."""
        rows = slice(first, first + len(tokens))
        self._tokens[rows] = chosen  # (B,)
        self.chooser.note(first, self._positions[rows], chosen)
        for sequence, token in zip(sequences, tokens, strict=True):
            try:
                self._append(sequence, token)
            except Exception as failure:  # its own affair: the others go on
                log.exception("one answer of %d failed", len(tokens))
                fail([sequence], failure)
        self._close_up()

    def _append(self, sequence: Sequence, token: int) -> None:
        if token == NOT_FINITE:
            raise FloatingPointError("the logits of one row are not finite")
        sequence.generated.append(token)
        done = self._finish_reason(sequence)
        if done is not None:
            self._retire(sequence, done)
        sequence.request.on_token(len(sequence.generated), sequence.request.max_new_tokens)

    def _finish_reason(self, sequence: Sequence) -> Literal["stop", "length"] | None:
        if sequence.generated[-1] in self.chooser.sampling.stop_ids:
            return "stop"
        full = sequence.request.prompt.tokens + len(sequence.generated) >= self._cache.length
        return "length" if full or len(sequence.generated) >= sequence.request.max_new_tokens else None

    def _retire(self, sequence: Sequence, reason: Literal["stop", "length"]) -> None:
        ids = sequence.generated[:-1] if reason == "stop" else sequence.generated
        text = self._tokenizer.decode(ids, skip_special_tokens=True).strip()
        self._health.answered()
        self._line.answered()
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
            self.chooser.move(last, row)
            if self._token_step.experts is not None:
                self._token_step.experts.move(last, row)
        with self._line.moved:
            rows.pop()
            if not rows:
                self._line.grow()
            self._line.moved.notify_all()
        self._changed = True

    def fail_all(self, failure: Exception) -> None:
        """Whoever is in flight fails with this."""
        fail(self._line.rows, failure)
        with self._line.moved:
            self._line.rows.clear()
            self._line.grow()
            self._line.moved.notify_all()
