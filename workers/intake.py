"""From the line into the model: videos that are looked at, and prompts that are prefilled."""

import logging
import time
from collections.abc import Callable

from contract.errors import Code, JobFailure
from workers.health import Health, out_of_memory
from workers.line import Line, WaitingLook, fail
from workers.prefill import Look, Prefill
from workers.sequence import Sequence

log = logging.getLogger("visum.engine")

_TOO_LARGE = "The machine has too little memory for this video, even on its own."


class Intake:
    """Runs the passes over those at the head of the line. `free_memory` lets go of what can be made again.

    It is called after the `except` of a failed pass, never in it: there the failure keeps the pass's tensors alive.
    """

    def __init__(self, line: Line, prefill: Prefill, health: Health, free_memory: Callable[[], None]) -> None:
        self._line = line
        self._prefill = prefill
        self._health = health
        self._free_memory = free_memory

    def look(self) -> None:
        """All videos that are to be looked at, as far as they fit into one pass."""
        group = self._line.next_looks()
        if not group:
            return
        try:
            seen = self._prefill.see([look for look, _ in group])
        except Exception as failure:
            if not out_of_memory(failure):
                log.exception("looking at %d videos failed", len(group))
                told = self._health.judge(failure)
                for _, future in group:
                    future.set_exception(told)
                return
            seen = None
        if seen is None:
            self._look_one_by_one(group)
            return
        for (_, future), video in zip(group, seen, strict=True):
            future.set_result(video.pooled)

    def _look_one_by_one(self, group: list[WaitingLook]) -> None:
        """Out of memory over some videos: one after the other; a single one is too large."""
        self._free_memory()
        for look, future in group:
            try:
                future.set_result(self._prefill.see([look])[0].pooled)
            except Exception as failure:
                if out_of_memory(failure):
                    future.set_exception(JobFailure(Code.MODEL_OUT_OF_MEMORY, _TOO_LARGE))
                else:
                    future.set_exception(self._health.judge(failure))

    def prefill(self) -> None:
        """Prefill what may join."""
        group = self._line.next_group()
        if not group:
            return
        try:
            self._line.put_back(self._prefill_group(group))
        except Exception as failure:  # nobody else would answer those that have not got through
            with self._line.moved:
                at_hand, self._line.prefilling = self._line.prefilling, []
            fail(at_hand, self._health.judge(failure))
            raise

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
            prefilled = None
        if prefilled is None:
            return self._split(group)
        for sequence, gates in zip(group, prefilled.gates, strict=True):
            sequence.gates = gates
            sequence.prefill_ended = time.monotonic()
            sequence.request.on_prefill(sequence.request.prompt.tokens, sequence.request.prompt.tokens)
        self._line.put_ready(group, prefilled)
        return []

    def _split(self, group: list[Sequence]) -> list[Sequence]:
        """Out of memory in a prefill: try the halves one after the other; a single one waits for the others in
        flight to end, and has to give up when it is alone already."""
        self._free_memory()
        if len(group) > 1:
            half = len(group) // 2
            late = self._prefill_group(group[:half])
            return [*late, *group[half:]] if late else self._prefill_group(group[half:])
        line = self._line
        with line.moved:
            if line.rows or line.ready:
                return group
            line.prefilling = [sequence for sequence in line.prefilling if sequence not in group]
        group[0].future.set_exception(JobFailure(Code.MODEL_OUT_OF_MEMORY, _TOO_LARGE))
        return []
