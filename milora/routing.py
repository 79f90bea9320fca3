"""Which video every row of a forward pass belongs to, and which adapter that video uses.

One `Routing` describes one pass and is shared by all adapted layers. It either *computes* gates (training and
prefill) or *reuses* those of the records it was made from (decoding). Rows reach a layer in one of four ways
(`Rows`), which the model's `Architecture` names for each of its modules:

- "patches", (N, …): the vision tower's patches of all videos one after the other, told apart by ``patches``;
- "frames", (F, n, …) or (F, C, H, W): whole frames of all videos one after the other, told apart by ``frames``;
- "videos", (V, n, …) or (V, C, T, H, W): one batch row per video, all of it the video's own;
- "prompt", (V, T, …): one batch row per video; ``prompt_mask`` says which tokens are the prompt's own.

In a model of no known architecture the shape alone decides between "prompt" and "patches".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from milora.config import GroupName
from milora.errors import RoutingError

Rows = Literal["patches", "frames", "videos", "prompt"]
"""How the rows of a module's input are laid out."""


@dataclass(frozen=True)
class Layout:
    """How the rows (N, in) of one layer's input fall into videos.

    ``per_video`` is the number of rows of every video when it is the same for all, else ``None``;
    ``lengths`` are the counts. ``pool_weights`` (V, 1, n) weighs rows in the pool, ``None`` weighs all
    alike. ``row_video`` (N,) is each row's video, only where the counts differ.
    """

    videos: int
    lengths: tuple[int, ...]
    per_video: int | None
    pool_weights: Tensor | None = None
    row_video: Tensor | None = None

    @property
    def rows(self) -> int:
        """N, the number of rows in all."""
        return sum(self.lengths)

    @classmethod
    def packed(cls, lengths: Sequence[int], device: torch.device) -> Layout:
        """Rows of all videos one after the other."""
        counts = tuple(int(n) for n in lengths)
        if not counts or min(counts) < 1:
            raise RoutingError(f"every video needs at least one patch or frame, got {list(counts)}")
        if len(set(counts)) == 1:
            return cls(len(counts), counts, counts[0])
        videos = torch.arange(len(counts), device=device)
        row_video = videos.repeat_interleave(torch.tensor(counts, device=device), output_size=sum(counts))
        return cls(len(counts), counts, None, row_video=row_video)

    @classmethod
    def sequence(cls, videos: int, tokens: int, pool_weights: Tensor | None = None) -> Layout:
        """One batch row of ``tokens`` positions per video."""
        return cls(videos, (tokens,) * videos, tokens, pool_weights)

    def spread(self, values: Tensor, weights: Tensor) -> Tensor:
        """values (N, R) · weights (V, R), every row with the weights of its own video."""
        if self.row_video is not None:
            return values * weights.index_select(0, self.row_video)
        by_video = values.view(self.videos, self.per_video, -1)  # (V, n, R)
        return (by_video * weights.unsqueeze(1)).view_as(values)


@dataclass(frozen=True)
class LayerInfo:
    """Name, group and number of experts of one adapted layer, as seen by one request."""

    name: str
    group: GroupName
    experts: int


@dataclass(frozen=True)
class GateRecord:
    """The gates of one request: computed at prefill, reused for every token after it.

    ``gates`` is (L, K_max) float32, one row per adapted layer of the model in injection order, zero beyond a
    layer's own K; rows of layers that did not run, or that this request's adapter leaves alone, have
    ``layers[i] is None``.
    """

    slot: int
    layers: tuple[LayerInfo | None, ...]
    gates: Tensor

    def joined(self, other: GateRecord) -> GateRecord:
        """The gates of two passes over the same request: each layer ran in one of them, or in none."""
        layers = tuple(mine or theirs for mine, theirs in zip(self.layers, other.layers, strict=True))
        return GateRecord(self.slot, layers, self.gates + other.gates)

    def by_layer(self) -> dict[str, Tensor]:
        """Layer name → its gate, (K,), on the CPU."""
        gates = self.gates.cpu()
        return {info.name: gates[i, : info.experts] for i, info in enumerate(self.layers) if info is not None}


class Routing:
    """One forward pass: V videos, the slot of each, and the gates, computed or given.

    Args:
        slots: the slot of every video, 0 for none.
        coefficients: c_γ of every slot, from `Fusion.coefficients`.
        patches: rows of every video in the packed vision sequence.
        frames: frames of every video, where a tower takes whole frames.
        prompt_mask: (V, T) true on the prompt's own tokens.
        keep: compute every gate once and use it for the passes that follow under this routing.
        given: (L, V, K_max) gates to reuse in place of computing them.
        missing: indices of the layers for which ``given`` lacks a gate that is needed.

    Raises:
        RoutingError: nothing to route, counts that disagree, or a video without a prompt token.
    """

    def __init__(
        self,
        slots: Sequence[int],
        *,
        device: torch.device,
        coefficients: dict[GroupName, Tensor] | None,
        patches: Sequence[int] | Tensor | None = None,
        frames: Sequence[int] | Tensor | None = None,
        prompt_mask: Tensor | None = None,
        keep: bool = False,
        given: Tensor | None = None,
        missing: frozenset[int] = frozenset(),
    ) -> None:
        self.slots = tuple(int(slot) for slot in slots)
        self.videos = len(self.slots)
        if self.videos == 0:
            raise RoutingError("a pass needs at least one video")
        self.coefficients = coefficients
        self.keep, self.given, self.missing = keep, given, missing
        self.present = tuple(sorted({slot for slot in self.slots if slot != 0}))
        self.gates: dict[int, Tensor] = {}
        self.row_weights: dict[int, Tensor] = {}
        self._index_slots(device)
        self._device = device
        self._packed = self._packed_layout("patch", patches)
        self._frames = self._packed_layout("frame", frames)
        self._by_frame: dict[int, Layout] = {}
        self._sequence = self._sequence_layout(prompt_mask, device)
        self._last_input: Tensor | None = None
        self._last_pooled: Tensor | None = None

    def _index_slots(self, device: torch.device) -> None:
        """Tensors that pick every video's slot; only passes over several adapters need them."""
        self.slot_index: Tensor | None = None  # (V,) place of the video's slot in a layer's stacks
        self.adapted: Tensor | None = None  # (V, 1) whether the video has an adapter
        if len(set(self.slots)) > 1:
            self.slot_index = torch.tensor([max(slot - 1, 0) for slot in self.slots], device=device)
            self.adapted = torch.tensor([[slot > 0] for slot in self.slots], device=device)

    def _packed_layout(self, what: str, given: Sequence[int] | Tensor | None) -> Layout | None:
        if given is None:
            return None
        counts = given.tolist() if isinstance(given, Tensor) else list(given)
        if len(counts) != self.videos:
            raise RoutingError(f"{len(counts)} {what} counts for {self.videos} videos")
        return Layout.packed(counts, self._device)

    def _sequence_layout(self, prompt_mask: Tensor | None, device: torch.device) -> Layout | None:
        if prompt_mask is None:
            return None
        if prompt_mask.dim() != 2 or prompt_mask.shape[0] != self.videos:
            raise RoutingError(f"prompt_mask is {tuple(prompt_mask.shape)}, expected ({self.videos}, T)")
        weights = prompt_mask.to(device=device, dtype=torch.float32)
        counts = weights.sum(1, keepdim=True)
        if bool((counts == 0).any()):
            raise RoutingError("a video has no prompt token to pool over")
        return Layout.sequence(self.videos, weights.shape[1], (weights / counts).unsqueeze(1))

    def settled(self, index: int) -> bool:
        """True when a layer's gates are there already, so that nothing is pooled any more."""
        return self.given is not None or index in self.row_weights

    def layout(
        self,
        name: str,
        rows: int,
        leading: tuple[int, ...],
        kind: Rows | None = None,
        *,
        settled: bool = False,
    ) -> Layout:
        """The layout of one layer's input, given its number of rows, its leading dimensions and their kind.

        Raises:
            RoutingError: the input is not of that kind, or not as large as this pass's counts say.
        """
        found = None
        if kind in (None, "prompt"):
            found = self._prompt_rows(leading, settled)
        if found is None and kind in (None, "patches") and self._packed and rows == self._packed.rows:
            found = self._packed
        if found is None and kind in (None, "prompt") and len(leading) == 1 and rows == self.videos:
            found = Layout.sequence(self.videos, 1)
        if kind == "frames":
            found = self._frame_rows(rows, leading)
        if kind == "videos" and leading[0] == self.videos:
            found = Layout.sequence(self.videos, rows // self.videos)
        if found is None:
            raise RoutingError(
                f"{name}: an input with leading dimensions {leading} is {self._expected(kind)}"
            )
        return found

    def _prompt_rows(self, leading: tuple[int, ...], settled: bool) -> Layout | None:
        if len(leading) != 2 or leading[0] != self.videos:
            return None
        if settled:
            return Layout.sequence(self.videos, leading[1])
        fits = self._sequence is not None and leading[1] == self._sequence.per_video
        return self._sequence if fits else None

    def _frame_rows(self, rows: int, leading: tuple[int, ...]) -> Layout | None:
        """Every frame brings the same number of rows: the tower's tokens, or one where it is convolved whole."""
        if self._frames is None or leading[0] != self._frames.rows:
            return None
        each = rows // leading[0]
        if each not in self._by_frame:
            counts = [frames * each for frames in self._frames.lengths]
            self._by_frame[each] = Layout.packed(counts, self._device)
        return self._by_frame[each]

    def _expected(self, kind: Rows | None) -> str:
        tokens = self._sequence.per_video if self._sequence else None
        patches = self._packed.rows if self._packed else None
        frames = self._frames.rows if self._frames else None
        return {
            None: f"neither of a prompt_mask of ({self.videos}, {tokens}) or {patches} patches",
            "prompt": f"not of a prompt_mask of ({self.videos}, {tokens})",
            "patches": f"not of {patches} patches",
            "frames": f"not of {frames} frames",
            "videos": f"not of {self.videos} videos",
        }[kind]

    def pooled(self, x: Tensor) -> Tensor | None:
        """The pool of this very input, if the layer before computed it (q, k and v share theirs)."""
        return self._last_pooled if self._last_input is x else None

    def remember_pooled(self, x: Tensor, z: Tensor) -> None:
        """Keep the pool of an input for the layers that read the same one."""
        self._last_input, self._last_pooled = x, z

    def release(self) -> None:
        """Forget the last input, so that it is not kept alive after the pass."""
        self._last_input = self._last_pooled = None
