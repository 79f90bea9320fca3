"""The engine: everything in flight on the model, and the threads that move it.

    prefill    look at videos, run the prompts of those at the head of the line that there are rows for
    decode     let the prefilled ones join, drop what was stopped, one token for everybody in flight

The two run on a thread each, or in turns on one where either fills all cores. Requests join and leave between decode
steps, whatever adapters they use: they wait for a prefill at most, never for anybody else's answer.
"""

import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass

import torch

from milora import MiloraModel
from model_store.backbone import Backbone
from workers.health import Health
from workers.intake import Intake
from workers.line import Line
from workers.memory_plan import cache_budget, head_width, plan_cache, prefill_bytes
from workers.prefill import Look, Prefill
from workers.request import EngineAnswer, EngineClosed, EngineRequest
from workers.rows import Rows
from workers.slot_cache import SlotCache
from workers.token_step import TokenStep, lay_out
from workers.vision_cache import VisionCache

log = logging.getLogger("visum.engine")

_SMALL_MODEL = 50_000_000
"""Parameters up to which a decode step on the CPU is faster in one thread beside other work than in several."""


@dataclass(frozen=True)
class EngineLimits:
    """How much may be in flight.

    `max_batch` requests of `row_tokens` tokens each, prompt and answer (None: as many as the backbone reads);
    `prefill_tokens` (padding included) in one prefill; `vision_cache_bytes` of features of videos seen before;
    `host_bytes` are what others of this process may take later. Memory may allow less of the first two: they are
    planned when the engine is made.
    """

    max_batch: int = 8
    prefill_tokens: int = 16384
    row_tokens: int | None = None
    vision_cache_bytes: int = 256 << 20
    host_bytes: int = 0


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
        self._device = backbone.device
        stacked = lay_out(backbone.model, experts, limits.max_batch)
        cache = _planned_cache(backbone, limits)  # in what is free after everything that stays
        self.vision = VisionCache(limits.vision_cache_bytes)
        self._health = Health()
        self._line = Line(rows=cache.rows, length=cache.length, prefill_tokens=limits.prefill_tokens)
        token_step = TokenStep(backbone.model, cache, stacked)
        self._rows = Rows(self._line, backbone, token_step, self._health, self._free_memory)
        prefill = Prefill(backbone.model, experts, self.vision)
        self._intake = Intake(self._line, prefill, self._health, self._free_memory)
        turns = (
            [self._run_in_turns] if _fills_the_cores(backbone) else [self._run_prefills, self._run_decoding]
        )
        self._threads = [threading.Thread(target=turn, name="visum-engine", daemon=True) for turn in turns]
        self._tensor_threads = tensor_threads or torch.get_num_threads()
        self._on_broken: Callable[[], None] = lambda: None

    # -- from any thread ------------------------------------------------------------------------

    def start(self, on_broken: Callable[[], None] = lambda: None) -> None:
        """`on_broken` is called, once at least, when the device or this process is of no more use. By then everybody is
        told, and nobody is taken any more."""
        self._on_broken = on_broken
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """End the threads after their current pass; whatever is unanswered fails with `EngineClosed`."""
        self._line.close()
        for thread in self._threads:
            if thread.is_alive():
                thread.join()
        self._line.dismiss(EngineClosed())

    @property
    def broken(self) -> bool:
        """Whether the process has to begin anew."""
        return self._health.broken

    @property
    def room(self) -> int:
        """How many requests can be in flight now: fewer while memory is short."""
        return self._line.room

    @property
    def in_flight(self) -> int:
        return len(self._line.rows)

    def submit(self, request: EngineRequest) -> "Future[EngineAnswer]":
        """Queue a request. Its future raises RequestStopped, JobFailure (model.empty_answer,
        model.out_of_memory, video.too_long), EngineBroken or EngineClosed in place of an answer."""
        return self.submit_all([request])[0]

    def submit_all(self, requests: list[EngineRequest]) -> "list[Future[EngineAnswer]]":
        """Queue several requests in one piece: the next prefill finds all of them."""
        return [sequence.future for sequence in self._line.submit(requests)]

    def look(self, look: Look) -> "Future[torch.Tensor]":
        """(D,) pooled features that the vision tower makes of a video; waiting ones are looked at together."""
        return self._line.look(look)

    # -- the threads ----------------------------------------------------------------------------

    def _run_in_turns(self) -> None:
        _take_tensor_threads(self._tensor_threads)
        line = self._line
        while self._await(lambda: line.looks or line.waiting or line.ready or line.rows):
            self._try_prefill()
            self._try_decode()

    def _run_prefills(self) -> None:
        self._share_the_cores()
        while self._await(lambda: self._line.looks or self._line.admissible()):
            self._try_prefill()

    def _run_decoding(self) -> None:
        self._share_the_cores()
        while self._await(lambda: self._line.rows or self._line.ready):
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
        self._give_up_if_broken()

    def _try_decode(self) -> None:
        try:
            self.decode()
        except Exception as failure:
            log.exception("a step failed; %d requests in flight fail with it", self.in_flight)
            self._rows.fail_all(self._health.judge(failure))
        self._give_up_if_broken()

    def _give_up_if_broken(self) -> None:
        """Those who were not in the pass that broke it are as if they had never been here."""
        if self._health.broken:
            self._line.close()
            self._line.dismiss(EngineClosed())
            self._on_broken()

    def _await(self, work: Callable[[], object]) -> bool:
        """Wait for work; False when the engine is closed."""
        with self._line.moved:
            self._line.moved.wait_for(lambda: self._line.closed or work())
            return not self._line.closed

    def step(self) -> None:
        """One turn of each thread. Public so that tests can take turns by hand."""
        self.prefill()
        self.decode()

    @torch.no_grad()
    def prefill(self) -> None:
        """Look at the videos that are to be routed, and prefill what may join."""
        self._intake.look()
        self._line.drop_stopped()
        self._intake.prefill()

    @torch.no_grad()
    def decode(self) -> None:
        """Let the prefilled ones join, drop what was stopped, and take one step."""
        self._line.drop_stopped()
        self._rows.join_ready()
        self._rows.drop_stopped()
        self._rows.step()

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
    later = prefill_bytes(backbone.model.config, backbone.dtype, limits.prefill_tokens)
    later += limits.vision_cache_bytes
    if backbone.device.type == "cpu":
        later += limits.host_bytes
    plan = plan_cache(
        config,
        backbone.dtype,
        rows=limits.max_batch,
        length=limits.row_tokens or config.max_position_embeddings,
        budget=cache_budget(backbone.device, later),
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
