"""How a training of experts fails, seen while it happens and said in words with what to do.

experts_collapsed    a layer's gate gives one of its experts less than a quarter of its share
experts_alike        the experts of a layer change the same directions
lambda_too_strong    the loss has stopped falling while the experts' norms shrink
order_not_learned    objects are told rightly and the order of their events is not: temporal experts under-train
no_gain              the answers are no better than the frozen backbone's
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from milora import MiloraModel, Routing
from milora.layers import MiloraLayer
from training.trainer.quality import Quality

USAGE_FLOOR = 0.25  # of an expert's even share 1/K
LAYERS_SHARE = 0.1  # of a group's layers before it is told
ALIKE = 0.9  # mean squared cosine of the principal angles
WINDOW = 20  # steps that are compared with as many before them
STALLED = 0.01  # less relative fall of the loss than this
SHRUNK = 0.05  # more relative fall of the norms than this
OBJECTS_KNOWN = 0.5  # share of objects told rightly before the order is asked for
GAIN = 0.01  # ROUGE-L that is more than noise


@dataclass(frozen=True)
class Finding:
    """One signature: a stable code, what was seen, what to do."""

    code: str
    seen: str
    advice: str

    def __str__(self) -> str:
        return f"{self.code}: {self.seen} {self.advice}"


class GateWatch:
    """Means of the gates over the steps since the last look."""

    def __init__(self, handle: MiloraModel) -> None:
        self._handle = handle
        self._sums: dict[int, Tensor] = {}
        self._entropy: dict[int, float] = defaultdict(float)
        self._videos = 0
        self._usage: dict[str, Tensor] = {}
        self._mean_entropy: dict[str, float] = {}

    @torch.no_grad()
    def see(self, routing: Routing) -> float:
        """Note one pass; the mean over layers of its gates' entropy as a share of log K (1 where K is 1)."""
        shares = []
        for index, gates in routing.gates.items():
            own = gates.detach().double()
            entropy = -(own * own.clamp_min(1e-12).log()).sum(1)
            self._sums[index] = self._sums.get(index, 0) + own.sum(0)
            self._entropy[index] += float(entropy.sum())
            if own.shape[1] > 1:
                shares.append(float(entropy.mean()) / math.log(own.shape[1]))
        self._videos += routing.videos
        return sum(shares) / len(shares) if shares else 1.0

    def usage(self) -> dict[str, Tensor]:
        """Layer → mean gate (K,) of the videos seen since the last look, or before it if there were none."""
        if self._videos:
            names = {layer.index: layer.name for layer in self._handle.layers}
            self._usage = {names[index]: total / self._videos for index, total in self._sums.items()}
            self._mean_entropy = {
                names[index]: total / self._videos for index, total in self._entropy.items()
            }
            self._sums, self._entropy, self._videos = {}, defaultdict(float), 0
        return self._usage

    def findings(self) -> list[Finding]:
        """What the gates show, and a fresh start."""
        usage = self.usage()
        return [*collapsed(self._handle, usage, self._mean_entropy), *alike(self._handle)]


def collapsed(
    handle: MiloraModel, usage: Mapping[str, Tensor], entropy: Mapping[str, float]
) -> list[Finding]:
    """Groups in which experts are hardly used; ``entropy`` is that of each layer's gates, the mean in nats."""
    found = []
    for group, config in handle.config.groups.items():
        floor = USAGE_FLOOR / config.experts
        layers = [layer.name for layer in handle.layers_of(group) if layer.name in usage]
        dead = [name for name in layers if float(usage[name].min()) < floor]
        if config.experts > 1 and len(dead) > LAYERS_SHARE * len(layers):
            mean_entropy = sum(entropy[name] for name in layers) / len(layers)
            found.append(
                Finding(
                    "experts_collapsed",
                    f"In {len(dead)} of {len(layers)} {group} layers an expert gets less than {floor:.3f} of the "
                    f"gate, a quarter of its share (worst: {dead[0]}; mean entropy {mean_entropy:.2f} of at most "
                    f"{math.log(config.experts):.2f}).",
                    "Raise loss.balance (μ) or the temperature, lower schedule.gate_lr, or train fewer experts.",
                )
            )
    return found


def alike(handle: MiloraModel) -> list[Finding]:
    """Groups whose experts span the same directions."""
    found = []
    for group, config in handle.config.groups.items():
        if config.experts == 1:
            continue
        layers = handle.layers_of(group)
        means = [_mean_off_diagonal(similarity(layer)) for layer in layers]
        mean = sum(means) / len(means)
        if mean > ALIKE:
            found.append(
                Finding(
                    "experts_alike",
                    f"The {group} experts of a layer change the same directions (similarity {mean:.2f} of 1).",
                    "They act as one expert: use fewer of a higher rank, or let gates differ more (lower temperature).",
                )
            )
    return found


@torch.no_grad()
def similarity(layer: MiloraLayer) -> Tensor:
    """(K, K): mean squared cosine of the principal angles between experts' updates B_k A_k, over both their sides.

    1 on the diagonal; r/n for random subspaces of n dimensions; 0 where an update is zero.
    """
    A, B = layer.A[0].float(), layer.B[0].float()  # (R, in), (R, out)
    experts = layer.experts
    sides = [_overlaps(side.view(experts, -1, side.shape[1])) for side in (A, B)]
    idle = B.view(experts, -1).norm(dim=1) == 0
    mean = (sides[0] + sides[1]) / 2
    mean[idle] = 0.0
    mean[:, idle] = 0.0
    return mean.fill_diagonal_(1.0)


def _overlaps(rows: Tensor) -> Tensor:
    """(K, K) of K subspaces given by their rows (K, r, n)."""
    bases = torch.linalg.qr(rows.transpose(1, 2)).Q  # (K, n, r)
    products = torch.einsum("inr,jns->ijrs", bases, bases)  # singular values: the cosines
    return products.square().sum((2, 3)) / rows.shape[1]


def _mean_off_diagonal(square: Tensor) -> float:
    experts = len(square)
    return float((square.sum() - square.diagonal().sum()) / (experts * (experts - 1)))


def too_much_decay(losses: Sequence[float], norms: Sequence[float]) -> list[Finding]:
    """λ holds the experts down: per-step training losses and Σ(‖A‖² + ‖B‖²)."""
    if len(losses) < 2 * WINDOW:
        return []
    before, now = losses[-2 * WINDOW : -WINDOW], losses[-WINDOW:]
    fall = 1 - sum(now) / max(sum(before), 1e-12)
    shrunk = 1 - norms[-1] / max(norms[-2 * WINDOW], 1e-12)
    if fall >= STALLED or shrunk <= SHRUNK:
        return []
    return [
        Finding(
            "lambda_too_strong",
            f"Over the last {2 * WINDOW} steps the loss changed by {-fall:+.1%} while the experts' norms shrank by "
            f"{shrunk:.0%}.",
            "The penalty undoes what is learned: lower loss.frobenius (λ) tenfold.",
        )
    ]


def order_not_learned(quality: Quality) -> list[Finding]:
    """Objects are right and the order of events is not."""
    if quality.facts is None:
        return []
    recall = quality.facts.recall_by_attribute
    # Two events in order need both objects right.
    expected = recall["object"] ** 2
    if recall["object"] < OBJECTS_KNOWN or recall["order"] >= expected / 2:
        return []
    return [
        Finding(
            "order_not_learned",
            f"{recall['object']:.0%} of the objects are told rightly but only {recall['order']:.0%} of the orders.",
            "Temporal experts under-train: raise temporal.rank or temporal.lr_scale, and show more frames a video.",
        )
    ]


def no_gain(quality: Quality, frozen: Quality | None) -> list[Finding]:
    """The adapter does not beat the backbone without it."""
    if frozen is None or quality.rouge_l > frozen.rouge_l + GAIN:
        return []
    return [
        Finding(
            "no_gain",
            f"ROUGE-L is {quality.rouge_l:.3f}, the frozen backbone's {frozen.rouge_l:.3f}.",
            "Nothing was gained: check that the summaries belong to the videos, train longer, or try other rates.",
        )
    ]
