"""Who is where in the engine: to be looked at, waiting, being prefilled, ready, in a row."""

import threading
from collections import deque
from concurrent.futures import Future

import torch

from contract.errors import Code, JobFailure
from workers.memory_plan import PATCHES_PER_TOKEN
from workers.prefill import Look, Prefilled
from workers.request import EngineClosed, EngineRequest, RequestStopped
from workers.sequence import Sequence

_ANSWERS_BEFORE_MORE = 16
"""After memory ran out: so many answers without that, and one more may be in flight."""

WaitingLook = tuple[Look, "Future[torch.Tensor]"]


class Line:
    """The way of every request from its arrival to its row. `moved` guards it and is told whenever somebody moves.

    `room` is how many may be in flight now; a prompt has to be shorter than `length`; `prefill_tokens` (padding
    included) go into one prefill.
    """

    def __init__(self, *, rows: int, length: int, prefill_tokens: int) -> None:
        self.moved = threading.Condition()
        self.closed = False
        self.looks: deque[WaitingLook] = deque()
        self.waiting: deque[Sequence] = deque()
        self.prefilling: list[Sequence] = []
        self.ready: deque[tuple[list[Sequence], Prefilled]] = deque()
        #: Who is in flight; a sequence's place in the list is its row in cache, tokens and positions.
        self.rows: list[Sequence] = []
        self.room = self._most = rows
        self._answers = 0  # since memory last ran out, or since there is room for one more
        self._length, self._prefill_tokens = length, prefill_tokens
        #: A prefill ran out of memory beside so many rows: the next one waits until there are fewer.
        self._too_many_rows: int | None = None

    def close(self) -> None:
        """Take nobody any more."""
        with self.moved:
            self.closed = True
            self.moved.notify_all()

    def dismiss(self, failure: Exception) -> None:
        """Tell everybody who has no answer yet."""
        with self.moved:
            fail([*self.waiting, *self.prefilled, *self.rows], failure)
            for _, future in self.looks:
                future.set_exception(failure)
            self.looks.clear()

    def submit(self, requests: list[EngineRequest]) -> list[Sequence]:
        """Queue requests in one piece: the next prefill finds all of them."""
        sequences = [Sequence.of(request) for request in requests]
        with self.moved:
            if self.closed:
                raise EngineClosed
            self.waiting.extend(sequences)
            self.moved.notify_all()
        return sequences

    def look(self, look: Look) -> "Future[torch.Tensor]":
        """Queue a video that is to be looked at."""
        future: Future[torch.Tensor] = Future()
        with self.moved:
            if self.closed:
                raise EngineClosed
            self.looks.append((look, future))
            self.moved.notify_all()
        return future

    @property
    def prefilled(self) -> list[Sequence]:
        """Those that are on their way from the line to a row."""
        return [*self.prefilling, *(sequence for group, _ in self.ready for sequence in group)]

    def admissible(self) -> int:
        """How many of the waiting there are rows for now."""
        taken = len(self.rows) + len(self.prefilled)
        if self._too_many_rows is not None and taken >= self._too_many_rows:
            return 0
        return min(len(self.waiting), max(0, self.room - taken))

    def next_looks(self) -> list[WaitingLook]:
        """All videos that are to be looked at, as far as they fit into one pass."""
        group: list[WaitingLook] = []
        patches = 0
        with self.moved:
            while self.looks:
                patches += self.looks[0][0].prompt.patches
                if group and patches > self._prefill_tokens * PATCHES_PER_TOKEN:
                    break
                group.append(self.looks.popleft())
        return group

    def next_group(self) -> list[Sequence]:
        """The requests at the head of the line that fit into the free rows and into one pass."""
        group: list[Sequence] = []
        longest = patches = 0
        with self.moved:
            free = self.admissible()
            self._too_many_rows = None if free else self._too_many_rows
            while self.waiting and len(group) < free:
                prompt = self.waiting[0].request.prompt
                longest, patches = max(longest, prompt.tokens), patches + prompt.patches
                tokens = max(longest * (len(group) + 1), patches / PATCHES_PER_TOKEN)
                if group and tokens > self._prefill_tokens:
                    break
                sequence = self.waiting.popleft()
                if self._fits_a_row(sequence):
                    group.append(sequence)
            self.prefilling = list(group)
        return group

    def _fits_a_row(self, sequence: Sequence) -> bool:
        tokens, limit = sequence.request.prompt.tokens, self._length
        if tokens < limit:
            return True
        message = (
            f"The video and the words beside it make {tokens} tokens, the model reads {limit} at most: send a shorter "
            "video or shorter instructions."
        )
        sequence.future.set_exception(JobFailure(Code.VIDEO_TOO_LONG, message))
        return False

    def put_ready(self, group: list[Sequence], prefilled: Prefilled) -> None:
        """A group is prefilled and may join."""
        with self.moved:
            self.prefilling = [sequence for sequence in self.prefilling if sequence not in group]
            self.ready.append((group, prefilled))
            self.moved.notify_all()

    def put_back(self, late: list[Sequence]) -> None:
        """The prefill is over; those who are late go back to the head of the line, until fewer rows are taken."""
        with self.moved:
            self.prefilling = []
            if late:
                self.waiting.extendleft(reversed(late))
                taken = len(self.rows) + len(self.prefilled)
                self._too_many_rows = max(1, taken)  # they may be gone by now: an empty batch is always tried

    def start_again(self, sequences: list[Sequence]) -> None:
        """Back to the head of the line, as if they had not begun."""
        with self.moved:
            for sequence in sequences:
                sequence.restart()
            self.waiting.extendleft(reversed(sequences))
            self.moved.notify_all()

    def shrink(self, room: int) -> None:
        """Memory ran out: fewer at once from now on."""
        with self.moved:
            self.room, self._answers = max(1, room), 0

    def grow(self) -> None:
        """Nothing is in flight, so that memory is free again."""
        with self.moved:
            self.room = self._most

    def answered(self) -> None:
        """What sufficed for some answers in a row may suffice for one more at once."""
        with self.moved:
            self._answers += 1
            if self._answers >= _ANSWERS_BEFORE_MORE and self.room < self._most:
                self.room, self._answers = self.room + 1, 0
                self.moved.notify_all()

    def drop_stopped(self) -> None:
        """Nobody waits for the answer of those who were stopped."""
        with self.moved:
            stopped = [sequence for sequence in self.waiting if sequence.request.stop.is_set()]
            for sequence in stopped:
                self.waiting.remove(sequence)
        fail(stopped, RequestStopped())


def fail(sequences: list[Sequence], failure: Exception) -> None:
    """Tell all of these that have no answer yet."""
    for sequence in sequences:
        if not sequence.future.done():
            sequence.future.set_exception(failure)
