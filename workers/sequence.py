"""One request on its way through the engine."""

import time
from concurrent.futures import Future
from dataclasses import dataclass, field

import torch

from milora import GateRecord
from workers.request import EngineAnswer, EngineRequest


@dataclass(eq=False)
class Sequence:
    """One request on its way.

    Prefill fills `gates` and the two times; every step appends to `generated`. `draws` has a number in [0, 1) for
    every token of a sampled answer, None for a greedy one.
    """

    request: EngineRequest
    future: "Future[EngineAnswer]"
    draws: list[float] | None
    submitted: float = field(default_factory=time.monotonic)
    generated: list[int] = field(default_factory=list)
    gates: GateRecord | None = None
    prefill_began: float = 0.0
    prefill_ended: float = 0.0

    @classmethod
    def of(cls, request: EngineRequest) -> "Sequence":
        """A request that has just arrived."""
        future: Future[EngineAnswer] = Future()
        future.set_running_or_notify_cancel()  # a request is stopped by its `stop` alone
        if request.seed is None:
            return cls(request, future, None)
        generator = torch.Generator().manual_seed(request.seed)
        draws = torch.rand(request.max_new_tokens, generator=generator, dtype=torch.double)
        return cls(request, future, draws.tolist())

    def restart(self) -> None:
        """Forget what was generated; the same draws give the same answer again."""
        self.generated.clear()
        self.gates = None
        self.prefill_ended = 0.0
