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

    Prefill fills `gates` and the two times; every step appends to `generated`. `ids` is prompt plus answer.
    """

    request: EngineRequest
    future: "Future[EngineAnswer]"
    generator: torch.Generator | None
    submitted: float = field(default_factory=time.monotonic)
    generated: list[int] = field(default_factory=list)
    gates: GateRecord | None = None
    prefill_began: float = 0.0
    prefill_ended: float = 0.0

    @classmethod
    def of(cls, request: EngineRequest) -> "Sequence":
        """A request that has just arrived."""
        generator = None if request.seed is None else torch.Generator().manual_seed(request.seed)
        return cls(request, Future(), generator)

    @property
    def ids(self) -> list[int]:
        return [*self.request.prompt.input_ids.tolist(), *self.generated]

    def restart(self) -> None:
        """Forget what was generated; the same seed gives the same answer again."""
        self.generated.clear()
        self.gates = None
        self.prefill_ended = 0.0
        if self.generator is not None and self.request.seed is not None:
            self.generator.manual_seed(self.request.seed)
