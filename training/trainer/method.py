"""What is trained beside the frozen backbone. MiLoRA here; the experiments put the baselines in its place."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from milora import AdapterState, MiloraModel, Routing, architecture, balance, frobenius, inject
from training.trainer.config import TrainConfig

Decoding = Callable[[int], AbstractContextManager[Any]]
"""Entered around every pass of one greedy decoding, with its number; the prompt's is 0."""


class Method(Protocol):
    """A way to adapt a frozen model."""

    name: str
    module: nn.Module  # holds what is trained, and nothing of the backbone

    def parameter_groups(self, config: TrainConfig) -> list[dict[str, Any]]:
        """Groups for the optimizer, each with its ``peak`` learning rate."""
        ...

    def training(self, rows: Mapping[str, Any]) -> AbstractContextManager[Routing | None]:
        """Around one training pass and its backward."""
        ...

    def calibrating(self) -> AbstractContextManager[None]:
        """Around the passes that come before the first step."""
        ...

    def penalty(self, routing: Routing | None) -> tuple[Tensor | float, dict[str, float]]:
        """What is added to the loss, and its parts for the log."""
        ...

    def decoding(self, rows: Mapping[str, Any]) -> Decoding:
        """For one greedy decoding over the prompts that ``rows`` describe."""
        ...

    def state(self) -> dict[str, Tensor]:
        """All tensors that a checkpoint must hold."""
        ...

    def load(self, state: Mapping[str, Tensor]) -> None:
        """The counterpart of `state`."""
        ...


class Milora:
    """The gated mixture of experts: A and B of each group, G, and a."""

    name = "milora"

    def __init__(self, model: nn.Module, config: TrainConfig) -> None:
        """Puts fresh experts beside the model's layers and freezes it.

        Raises:
            ConfigError: a target pattern matches no module, or the model is of no known architecture.
        """
        self.config = config
        self.handle: MiloraModel = inject(
            model, config.milora(architecture(model)), seed=config.seed, dtype=torch.float32
        )
        self.module: nn.Module = self.handle

    def parameter_groups(self, config: TrainConfig) -> list[dict[str, Any]]:
        schedule = config.schedule
        groups: list[dict[str, Any]] = [
            {
                "params": [p for layer in self.handle.layers_of(name) for p in (layer.A, layer.B)],
                "peak": schedule.matrix_lr * getattr(config, name).lr_scale,
            }
            for name in config.groups
        ]
        kinds = self.handle.trainable_parameters()
        groups.append({"params": kinds["G"], "peak": schedule.gate_lr})
        if kinds["a"]:
            groups.append({"params": kinds["a"], "peak": schedule.fusion_lr})
        return groups

    def training(self, rows: Mapping[str, Any]) -> AbstractContextManager[Routing]:
        return self.handle.training_pass(**rows)

    def calibrating(self) -> AbstractContextManager[None]:
        return self.handle.calibrate()

    def penalty(self, routing: Routing | None) -> tuple[Tensor | float, dict[str, float]]:
        loss = self.config.loss
        norm, uneven = frobenius(self.handle), balance(routing)
        return loss.frobenius * norm + loss.balance * uneven, {
            "frobenius": norm.item(),
            "balance": uneven.item(),
        }

    def decoding(self, rows: Mapping[str, Any]) -> Decoding:
        return _ExpertsDecoding(self.handle, rows)

    def state(self) -> dict[str, Tensor]:
        return dict(self.handle.state_dict())

    def load(self, state: Mapping[str, Tensor]) -> None:
        self.handle.load_state_dict(dict(state))

    @torch.no_grad()
    def round(self) -> None:
        """A and B become what is published, bfloat16 numbers, so that what is measured is what ships."""
        for layer in self.handle.layers:
            layer.A.copy_(layer.A.bfloat16())
            layer.B.copy_(layer.B.bfloat16())

    def export(self) -> AdapterState:
        """The adapter."""
        return self.handle.export_state()


class _ExpertsDecoding:
    """Routes the passes of one decoding: gates are computed with the prompt and reused after it."""

    def __init__(self, handle: MiloraModel, rows: Mapping[str, Any]) -> None:
        self._handle = handle
        self._prompt = handle.route([1] * len(rows["prompt_mask"]), **rows)
        self._later: Routing | None = None

    def __call__(self, step: int) -> AbstractContextManager[Routing]:
        if step == 0:
            return self._handle.use(self._prompt)
        if self._later is None:
            self._later = self._handle.reuse(self._handle.records(self._prompt))
        return self._handle.use(self._later)


@contextmanager
def around_generate(model: nn.Module, decoding: Decoding) -> Iterator[None]:
    """Lets every pass of a `generate` of transformers run inside its own part of a decoding."""
    step, entered = 0, None

    def before(module: nn.Module, args: Any, kwargs: Any) -> None:
        nonlocal entered
        entered = decoding(step)
        entered.__enter__()

    def after(module: nn.Module, args: Any, kwargs: Any, out: Any) -> None:
        nonlocal step
        entered.__exit__(None, None, None)
        step += 1

    hooks = (
        model.register_forward_pre_hook(before, with_kwargs=True),
        model.register_forward_hook(after, with_kwargs=True),
    )
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
