"""Do experts specialize? The numbers: what gates know of a video, what an expert's removal costs, how alike they are.

A gate g(v) is read as the chance p(E = k | v) of being answered by expert k. With attribute X of the videos

    I(E; X) = H(E) − H(E | X),   p(k | x) = mean of g_k over the videos with X = x,
    I(E; V) = H(E) − mean H(g),  the most that any attribute can have,

in bits, at every layer. The same with X shuffled says how much of it chance gives. Each domain has objects, words and
an order of telling of its own, so of every attribute but the domain only I(E; X | domain) counts.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import torch
from torch import Tensor

from milora import MiloraModel
from milora.layers import MiloraLayer
from training.signatures import similarity
from training.trainer.method import Milora
from training.trainer.passes import ForwardPass, Pair
from training.trainer.quality import Facts, fact_quality
from training.world import Clip
from training.world.scoring import ATTRIBUTES as FACT_KINDS

SHUFFLES = 50
#: What it takes to be called a specialist.
KNOWS = 0.05  # of log2 K: information of a gate about an attribute beyond chance
COSTS = 0.05  # recall of one kind of fact lost beyond the loss of the other kinds, and beyond chance
CHANCE = 0.05  # that the largest of all differences is called more than chance and is not
_TOGETHER = 16


def attributes_of(clip: Clip) -> dict[str, str]:
    """What is told of a clip's first event, whether telling follows seeing, and the domain."""
    first = clip.events[0]
    return {
        "object": first.kind,
        "colour": first.colour,
        "direction": first.motion.value,
        "order": "backwards" if clip.setting.backwards else "forwards",
        "domain": clip.domain,
    }


@torch.no_grad()
def gates_of(method: Milora, forward: ForwardPass, pairs: Sequence[Pair]) -> dict[str, Tensor]:
    """Layer → gates (V, K) of the prompts alone, in the order of the pairs."""
    by_frames: dict[int, list[int]] = {}
    for index, pair in enumerate(pairs):
        by_frames.setdefault(len(pair.times_s), []).append(index)
    found: dict[str, Tensor] = {}
    for members in by_frames.values():
        for start in range(0, len(members), _TOGETHER):
            chosen = members[start : start + _TOGETHER]
            batch = forward.read([pairs[index] for index in chosen])
            with method.training(forward.rows(batch)) as routing:
                forward.loss(batch, None)
            for layer in method.handle.layers:
                whole = found.setdefault(layer.name, torch.zeros(len(pairs), layer.experts))
                whole[chosen] = routing.gates[layer.index].float()
    return found


def entropy(p: Tensor) -> Tensor:
    """Bits of distributions along the last dimension."""
    return -(p * p.clamp_min(1e-12).log2()).sum(-1)


def information(gates: Tensor, values: Sequence[str]) -> float:
    """I(E; X) in bits of gates (V, K) and an attribute's values."""
    kinds = sorted(set(values))
    member = torch.tensor(
        [[value == kind for kind in kinds] for value in values], dtype=gates.dtype
    )  # (V, X)
    weight = member.sum(0)
    by_value = member.T @ gates / weight[:, None]  # (X, K)
    return float(entropy(gates.mean(0)) - (weight / len(values) * entropy(by_value)).sum())


def information_by_chance(gates: Tensor, values: Sequence[str], seed: int = 0) -> float:
    """The mean of `information` over shuffled attributes."""
    rng, shuffled, total = random.Random(seed), list(values), 0.0
    for _ in range(SHUFFLES):
        rng.shuffle(shuffled)
        total += information(gates, shuffled)
    return total / SHUFFLES


def information_beyond_chance(gates: Tensor, values: Sequence[str], within: Sequence[str]) -> float:
    """I(E; X | W) in bits less what shuffling X within each value of W gives, and 0 at least."""
    total = 0.0
    for part in sorted(set(within)):
        members = [index for index, value in enumerate(within) if value == part]
        own, of_them = gates[members], [values[index] for index in members]
        beyond = information(own, of_them) - information_by_chance(own, of_them)
        total += len(members) / len(values) * beyond
    return max(0.0, total)


@dataclass(frozen=True)
class Knowledge:
    """What one layer's gate knows, in bits: of the video at all, and of each attribute beyond chance."""

    layer: str
    group: str
    experts: int
    of_video: float
    of_attribute: Mapping[str, float]


def knowledge(
    handle: MiloraModel, gates: Mapping[str, Tensor], attributes: Sequence[Mapping[str, str]]
) -> list[Knowledge]:
    """Every layer's; attributes without variation among the videos have nothing to know."""
    found = []
    for layer in handle.layers:
        own = gates[layer.name]
        of = {}
        for name in attributes[0]:
            within = ["" if name == "domain" else one["domain"] for one in attributes]
            of[name] = information_beyond_chance(own, [one[name] for one in attributes], within)
        of_video = float(entropy(own.mean(0)) - entropy(own).mean())
        found.append(Knowledge(layer.name, layer.group, layer.experts, of_video, of))
    return found


def spread_by_attribute(gates: Tensor, values: Sequence[str]) -> Tensor:
    """(K,): how far an expert's mean gate differs between the values of an attribute, largest less smallest."""
    means = torch.stack(
        [
            gates[[index for index, value in enumerate(values) if value == kind]].mean(0)
            for kind in sorted(set(values))
        ]
    )
    return means.amax(0) - means.amin(0)


@dataclass(frozen=True)
class KnockOut:
    """Recall lost, by kind of fact, when something is taken out of a group's layers."""

    what: str
    group: str
    lost: Mapping[str, float]


def knock_outs(
    method: Milora, forward: ForwardPass, pairs: Sequence[Pair], clips: Sequence[Clip], limit: int
) -> tuple[Facts, list[KnockOut]]:
    """The whole adapter's facts; what is lost without each expert, and without as many ranks of all of them alike."""

    def facts() -> Facts:
        return fact_quality(clips, forward.answers(pairs, method, limit))

    whole, found = facts(), []
    for group, config in method.handle.config.groups.items():
        layers = method.handle.layers_of(group)
        for expert in range(config.experts):
            rows = torch.arange(expert * config.rank, (expert + 1) * config.rank)
            found.append(KnockOut(f"expert {expert + 1}", group, _lost(layers, rows, whole, facts)))
        every = torch.arange(0, config.rank_total, config.experts)  # as many ranks, from all experts
        found.append(KnockOut("as much of all", group, _lost(layers, every, whole, facts)))
    return whole, found


@torch.no_grad()
def _lost(layers: Sequence[MiloraLayer], rows: Tensor, whole: Facts, facts) -> dict[str, float]:
    kept = [layer.B[0, rows].clone() for layer in layers]
    for layer in layers:
        layer.B[0, rows] = 0.0
    try:
        without = facts()
    finally:
        for layer, values in zip(layers, kept, strict=True):
            layer.B[0, rows] = values
    return {kind: whole.recall_by_attribute[kind] - without.recall_by_attribute[kind] for kind in FACT_KINDS}


def mean_similarity(handle: MiloraModel, group: str) -> tuple[float, float]:
    """Of the experts of a group's layers: the mean similarity of two, and what random subspaces have."""
    layers = handle.layers_of(group)
    found, chance = [], []
    for layer in layers:
        square = similarity(layer)
        count = layer.experts
        if count > 1:
            found.append(float((square.sum() - count) / (count * (count - 1))))
            rank = layer.rank_total // count
            chance.append(rank * (1 / layer.fan_in + 1 / layer.fan_out) / 2)
    if not found:
        return 1.0, 1.0
    return sum(found) / len(found), sum(chance) / len(chance)


@dataclass(frozen=True)
class Verdict:
    """`specialists`, `partly` or `ensemble`, and why."""

    name: str
    words: str


def beyond_chance(facts: int, looks: int) -> float:
    """How far two recalls of so many facts are apart by chance in one of twenty cases, when the largest of so many
    differences is picked: a normal bound on a difference of two shares, each of variance 1/4 at most (Bonferroni)."""
    return NormalDist().inv_cdf(1 - CHANCE / looks) * math.sqrt(0.5 / facts) if facts else math.inf


def verdict(known: Sequence[Knowledge], removed: Sequence[KnockOut], facts: Mapping[str, int]) -> Verdict:
    """What the numbers support: gates must know an attribute, and some expert's removal must cost one kind of fact
    more than the others, and more than the same number of ranks taken from all experts costs, by more than chance
    gives.

    Args:
        facts: how many facts of each kind the recalls are of.
    """
    best, share = ("", ""), 0.0
    for layer in known:
        if layer.experts == 1:
            continue
        for name, bits in layer.of_attribute.items():
            relative = bits / float(torch.log2(torch.tensor(float(layer.experts))))
            if relative > share:
                best, share = (layer.layer, name), relative
    controls = {one.group: one.lost for one in removed if one.what == "as much of all"}
    sharpest, cost = ("", ""), 0.0
    experts = [one for one in removed if one.what != "as much of all"]
    looks = sum(len(one.lost) for one in experts)
    costs = False
    for one in experts:
        for kind, lost in one.lost.items():
            others = [value for other, value in one.lost.items() if other != kind]
            extra = lost - max(sum(others) / len(others), controls[one.group][kind])
            costs = costs or extra >= max(COSTS, beyond_chance(facts[kind], looks))
            if extra > cost:
                sharpest, cost = (f"{one.group} {one.what}", kind), extra
    knows = share >= KNOWS
    told = (
        f"The gate that knows most is that of {best[0]} about the {best[1]}: {share:.1%} of what it could."
        if best[0]
        else "No gate knows anything about any attribute beyond chance."
    )
    told += (
        f" The sharpest removal is that of {sharpest[0]}: it costs {cost:.3f} of the {sharpest[1]} recall beyond the "
        f"other kinds of facts and beyond as many ranks of all experts; chance gives up to "
        f"{beyond_chance(facts[sharpest[1]], looks):.3f}."
        if sharpest[0]
        else " No expert's removal costs one kind of fact more than the others."
    )
    if knows and costs:
        return Verdict("specialists", f"Experts specialize. {told}")
    if knows or costs:
        return Verdict("partly", f"Experts differ, but do not divide the work among them. {told}")
    return Verdict("ensemble", f"Experts are an ensemble: each does some of everything. {told}")
