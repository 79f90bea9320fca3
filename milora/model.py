"""The handle of a model with experts in it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from milora.calibration import GateCalibration
from milora.config import GroupConfig, GroupName, MiloraConfig
from milora.errors import MiloraError, RoutingError, StateMismatch
from milora.fusion import Fusion
from milora.layers import MiloraLayer
from milora.routing import GateRecord, LayerInfo, Routing
from milora.state import AdapterState, LayerState


class MiloraModel(nn.Module):
    """The experts of all adapted layers of one model, and the switch that lets a pass use them.

    Made by `milora.inject`. The base model is no child of it and keeps its modules, names and bytes; outside
    a pass (`training_pass`, `prefill`, `use`) it behaves exactly as without experts. ``train()`` switches
    dropout on.
    """

    def __init__(self, config: MiloraConfig, layers: Sequence[MiloraLayer], slots: int) -> None:
        super().__init__()
        self.config, self.slots = config, slots
        self.layers = nn.ModuleList(layers)
        self.fusion = Fusion(
            slots,
            fused=len(config.groups) == 2,
            learned=config.fusion == "learned",
            device=layers[0].A.device,
        )
        self.routing: Routing | None = None
        self._loaded = False
        self._undo: list[Callable[[], None]] = []

    @property
    def device(self) -> torch.device:
        """Where the experts live: with the base layers."""
        return self.layers[0].A.device

    # -- passes ------------------------------------------------------------------------------------

    def training_pass(
        self,
        *,
        prompt_mask: Tensor | None,
        patches: Sequence[int] | Tensor | None = None,
        frames: Sequence[int] | Tensor | None = None,
    ) -> AbstractContextManager[Routing]:
        """A context in which the forward uses slot 1 for every video; yields the `Routing` with its gates.

        Args:
            prompt_mask: (V, T) true on prompt tokens, false on padding and on the answer.
            patches: rows of each video in the packed vision sequence, e.g. ``grid_thw.prod(-1)``.
            frames: frames of each video, in models whose tower takes whole frames.
        """
        videos = len(next(rows for rows in (prompt_mask, patches, frames) if rows is not None))
        return self.use(self.route([1] * videos, prompt_mask=prompt_mask, patches=patches, frames=frames))

    def prefill(
        self,
        slots: Sequence[int],
        *,
        prompt_mask: Tensor | None = None,
        patches: Sequence[int] | Tensor | None = None,
        frames: Sequence[int] | Tensor | None = None,
    ) -> AbstractContextManager[Routing]:
        """A context in which the forward computes every video's gates; `records` reads them afterwards."""
        return self.use(self.route(slots, prompt_mask=prompt_mask, patches=patches, frames=frames))

    def generation(
        self,
        slots: Sequence[int],
        *,
        prompt_mask: Tensor | None = None,
        patches: Sequence[int] | Tensor | None = None,
        frames: Sequence[int] | Tensor | None = None,
    ) -> AbstractContextManager[Routing]:
        """A context for one `generate` of transformers (greedy or sampled, no beams).

        Gates are computed where the prompt and its video pass first, and kept for every token after.
        """
        routing = self.route(slots, prompt_mask=prompt_mask, patches=patches, frames=frames, keep=True)
        return self.use(routing)

    def route(
        self,
        slots: Sequence[int],
        *,
        prompt_mask: Tensor | None = None,
        patches: Sequence[int] | Tensor | None = None,
        frames: Sequence[int] | Tensor | None = None,
        keep: bool = False,
    ) -> Routing:
        """A routing that computes gates; 0 means no adapter. ``keep`` computes each of them once.

        Raises:
            RoutingError: a slot that does not exist, or counts that disagree.
        """
        wrong = [slot for slot in slots if not 0 <= slot <= self.slots]
        if wrong:
            raise RoutingError(f"slots {wrong} do not exist, the model has 1 to {self.slots}")
        return Routing(
            slots,
            device=self.device,
            coefficients=self.fusion.coefficients(),
            patches=patches,
            frames=frames,
            prompt_mask=prompt_mask,
            keep=keep,
        )

    def reuse(self, records: Sequence[GateRecord]) -> Routing:
        """A routing for decode steps over these requests, in batch order; keep it while the batch stays."""
        width = max(layer.experts for layer in self.layers)
        gates = [F.pad(record.gates, (0, width - record.gates.shape[1])) for record in records]
        given = torch.stack(gates, dim=1)  # (L, V, K_max)
        missing = frozenset(
            layer.index
            for layer in self.layers
            for record in records
            if record.slot and layer.config_of[record.slot - 1] and record.layers[layer.index] is None
        )
        coefficients = self.fusion.coefficients()
        slots = [record.slot for record in records]
        return Routing(slots, device=self.device, coefficients=coefficients, given=given, missing=missing)

    @contextmanager
    def use(self, routing: Routing) -> Iterator[Routing]:
        """Let every adapted layer follow this routing inside the block."""
        before, self.routing = self.routing, routing
        try:
            yield routing
        finally:
            self.routing = before
            routing.release()

    def records(self, routing: Routing) -> list[GateRecord]:
        """One record per video of a pass that computed gates, detached and in float32."""
        width = max(layer.experts for layer in self.layers)
        blank = torch.zeros(routing.videos, width, device=self.device)
        rows = [_padded(routing.gates.get(layer.index), width, blank) for layer in self.layers]
        gates = torch.stack(rows)  # (L, V, K_max)
        slots = set(routing.slots)
        infos = {slot: tuple(self._info(layer, slot, routing) for layer in self.layers) for slot in slots}
        return [GateRecord(slot, infos[slot], gates[:, video]) for video, slot in enumerate(routing.slots)]

    @staticmethod
    def _info(layer: MiloraLayer, slot: int, routing: Routing) -> LayerInfo | None:
        config = layer.config_of[slot - 1] if slot else None
        if config is None or layer.index not in routing.gates:
            return None
        return LayerInfo(layer.name, layer.group, config.experts)

    # -- training ----------------------------------------------------------------------------------

    def trainable_parameters(self) -> dict[str, list[nn.Parameter]]:
        """What an optimizer may change, by kind: A (R, in), B (R, out), G (K, in) per layer, and what a there is."""
        kinds = {kind: [getattr(layer, kind) for layer in self.layers] for kind in "ABG"}
        kinds["a"] = [self.fusion.a] if self.fusion.a.requires_grad and all(self.fusion.fused) else []
        kinds["a"] += [layer.a for layer in self.layers if layer.a is not None]
        return kinds

    def layers_of(self, group: GroupName) -> list[MiloraLayer]:
        """The adapted layers of one group, in injection order."""
        return [layer for layer in self.layers if layer.group == group]

    @contextmanager
    def calibrate(self) -> Iterator[None]:
        """Standardize the gates' inputs by the passes run inside the block; do this before the first step.

        Raises:
            MiloraError: an adapter was loaded (its gates would change), or fewer than two videos were seen.
        """
        if self._loaded:
            raise MiloraError("a loaded adapter keeps the standardization that is folded into its gates")
        calibration = GateCalibration()
        for layer in self.layers:
            layer.observer = calibration.observe
        try:
            with torch.no_grad():
                yield
        finally:
            for layer in self.layers:
                layer.observer = None
        for layer in self.layers:
            calibration.apply(layer)

    # -- state -------------------------------------------------------------------------------------

    @torch.no_grad()
    def export_state(self, slot: int = 1) -> AdapterState:
        """A copy of one slot's adapter, the gates' standardization folded into G and b."""
        layers: dict[str, LayerState] = {}
        groups: dict[GroupName, GroupConfig] = {}
        for group in self.config.groups:
            own = [layer for layer in self.layers_of(group) if layer.config_of[slot - 1] is not None]
            if own:
                names = tuple(layer.name for layer in own)
                groups[group] = replace(own[0].config_of[slot - 1], targets=names)
                layers |= {layer.name: layer.read(slot) for layer in own}
        return AdapterState(groups, layers, a=float(self.fusion.a[slot - 1]))

    def load_state(self, state: AdapterState, slot: int = 1) -> None:
        """Put an adapter into a slot; layers it does not have are left alone by it.

        Raises:
            StateMismatch: a layer that is not injected or sits in another group, a shape that does not fit,
                more experts or rank than the slots were made for. The slot keeps what it had.
        """
        self.check(state)
        for layer in self.layers:
            tensors = state.layers.get(layer.name)
            if tensors is None:
                layer.clear(slot)
            else:
                A, B = tensors.A.flatten(1), tensors.B.flatten(1).t()
                layer.write(slot, state.groups[layer.group], A, B, tensors.G, tensors.b)
        with torch.no_grad():
            self.fusion.a[slot - 1] = state.a
        self.fusion.fused[slot - 1] = state.fused
        self._loaded = True

    def check(self, state: AdapterState) -> None:
        """Raise `StateMismatch` unless the adapter fits this model's layers and slots."""
        own = {layer.name: layer for layer in self.layers}
        unknown = sorted(set(state.layers) - set(own))
        if unknown:
            raise StateMismatch(f"the model has no adapted layers named {unknown}")
        for name, tensors in state.layers.items():
            own[name].check(tensors, state.group_of[name], state.groups[state.group_of[name]])

    def clear(self, slot: int) -> None:
        """Empty a slot."""
        for layer in self.layers:
            layer.clear(slot)

    def remove(self) -> None:
        """Take the experts out: the base model is again what it was before `inject`, bit for bit."""
        for undo in reversed(self._undo):
            undo()
        self._undo.clear()


def _padded(gates: Tensor | None, width: int, blank: Tensor) -> Tensor:
    return blank if gates is None else F.pad(gates.detach(), (0, width - gates.shape[1]))
