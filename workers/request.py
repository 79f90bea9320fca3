"""What the engine is asked, and what it answers."""

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from threading import Event
from typing import Literal

from milora import GateRecord
from workers.prompt import Prompt

Report = Callable[[int, int], None]


def _ignore(done: int, total: int) -> None:
    """The progress of a request that nobody watches."""


@dataclass(frozen=True, eq=False)
class EngineRequest:
    """One answer to be generated.

    `slot` is where the request's adapter is resident, 0 for none; the caller keeps it pinned until the answer is
    there. `seed` None is greedy. `stop` is looked at between steps. `on_prefill` and `on_token` are called on the
    engine's threads with (done, total) tokens and must not block. `vision_key` names all that the tower's features of
    this video depend on, None if they need not be kept.
    """

    prompt: Prompt
    max_new_tokens: int
    slot: int = 0
    seed: int | None = None
    stop: Event = field(default_factory=Event)
    on_prefill: Report = _ignore
    on_token: Report = _ignore
    vision_key: Hashable | None = None


@dataclass(frozen=True, eq=False)
class EngineAnswer:
    """A finished answer. `token_ids` are without the stop token; `gates` is None without an adapter.

    `waited_s` counts from submission to prefill, `prefill_s` and `generate_s` what followed.
    """

    text: str
    token_ids: tuple[int, ...]
    finish_reason: Literal["stop", "length"]
    gates: GateRecord | None
    completion_tokens: int
    waited_s: float
    prefill_s: float
    generate_s: float


class RequestStopped(Exception):
    """The request's `stop` was set; nothing is answered."""


class EngineClosed(Exception):
    """The engine was shut down before the request was answered."""


class EngineBroken(Exception):
    """The request was in the pass that showed that this process can't generate any more. It may be the cause."""
