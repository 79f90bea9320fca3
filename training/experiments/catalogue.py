"""Which experiments there are: what each asks, of which arms, on which domains."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import product

from training.experiments.spec import Arm, RunSpec, Size
from training.world import DOMAINS

#: Peak learning rates of A and B that every arm is tried with, on every domain, before it is compared there.
LEARNING_RATES = (1.6e-3, 4e-3, 1e-2, 2.5e-2)
SWEEP_SEED = 1000  # no arm is compared on the seed that its rate was chosen on
NEW_WORDS = frozenset({*DOMAINS, "laboratory"})
#: Old words and new looks; old looks and a new order of telling.
OLD_WORDS_NEW_LOOKS, OLD_LOOKS_NEW_GRAMMAR = "negative", "rewind"
TRAINED, HELD_BACK = "traffic", "laboratory"
SWEPT_ON = {HELD_BACK: TRAINED}  # no choice is made on the held-back domain: it takes the rates of its like
EVERY = (OLD_WORDS_NEW_LOOKS, OLD_LOOKS_NEW_GRAMMAR, TRAINED, HELD_BACK)
RANKS, EXPERTS = (2, 4, 8, 16), (1, 2, 4, 8)

BOTH = Arm("both")
FROZEN = Arm("frozen", "frozen")
SECOND = "videollama2"  # the architecture of the other backbone of demo size


Rates = Mapping[tuple[str, str], float]
"""By arm and domain."""


@dataclass(frozen=True)
class Experiment:
    """A table: every arm on every domain."""

    name: str
    question: str
    arms: tuple[Arm, ...]
    domains: tuple[str, ...]

    @property
    def swept_on(self) -> tuple[str, ...]:
        """The domains on which its arms' rates are chosen."""
        return tuple(dict.fromkeys(SWEPT_ON.get(domain, domain) for domain in self.domains))


def _both_groups(**settings: object) -> dict[str, object]:
    return {f"{group}.{name}": value for group in ("temporal", "spatial") for name, value in settings.items()}


def _cell(rank: int, experts: int) -> Arm:
    """α = 2r: an expert's scale is the same in every cell. Cells of one rank share the rate of its K = 4."""
    settings = _both_groups(rank=rank, experts=experts, lora_alpha=2.0 * rank)
    return Arm(f"r={rank} K={experts}", "milora", settings, None if experts == 4 else f"r={rank} K=4")


def _variant(name: str, **settings: object) -> Arm:
    return Arm(name, "milora", settings, BOTH.name)


GROUPS = Experiment(
    "groups",
    "Temporal experts alone, spatial experts alone, both: which domain needs which?",
    (
        FROZEN,
        Arm("temporal only", settings={"groups": ["temporal"]}),
        Arm("spatial only", settings={"groups": ["spatial"]}),
        BOTH,
    ),
    EVERY,
)
BASELINES = Experiment(
    "baselines",
    "The mixture beside PEFT's LoRA, rsLoRA, DoRA and X-LoRA with as many trained parameters.",
    (FROZEN, BOTH, *(Arm(kind, kind) for kind in ("lora", "rslora", "dora", "xlora"))),
    EVERY,
)
GRID = Experiment(
    "grid",
    "How many experts, of which rank?",
    tuple(_cell(rank, experts) for rank in RANKS for experts in EXPERTS),
    (TRAINED,),
)
LOSS = Experiment(
    "loss",
    "What do the norm penalty (λ), the balance penalty (μ), the gates' temperature (τ) and top-k gates do?",
    (
        BOTH,
        *(_variant(f"λ={value:g}", **{"loss.frobenius": value}) for value in (0.0, 1e-5, 1e-3)),
        *(_variant(f"μ={value:g}", **{"loss.balance": value}) for value in (0.0, 0.2)),
        *(_variant(f"τ={value:g}", **_both_groups(temperature=value)) for value in (0.5, 2.0)),
        *(_variant(f"top-{value}", **_both_groups(top_k=value)) for value in (1, 2)),
    ),
    (TRAINED,),
)
FUSION = Experiment(
    "fusion",
    "One learned α, α fixed at one half, or an α of its own in every layer?",
    (
        BOTH,
        _variant("α fixed ½", fusion="fixed"),
        _variant("α per layer", fusion="per_layer"),
    ),
    (OLD_WORDS_NEW_LOOKS, OLD_LOOKS_NEW_GRAMMAR),
)
_LORA, _RSLORA = Arm("lora", "lora"), Arm("rslora", "rslora")
#: lora_alpha of a mixture that, with even gates, scales its K·r ranks as rsLoRA does: √(K·r) times the recipe's.
_STABILIZED_ALPHA = 16.0 * math.sqrt(4 * 8)
SCALE = Experiment(
    "scale",
    "Is what the mixture lacks against rsLoRA its scale? The mixture with lora_alpha · √(K·r), which is rsLoRA's.",
    (
        BOTH,
        Arm("both, rsLoRA's scale", settings=_both_groups(lora_alpha=_STABILIZED_ALPHA)),
        _LORA,
        _RSLORA,
    ),
    EVERY,
)
ARCHITECTURES = Experiment(
    "architectures",
    "Does the gain over the frozen backbone carry over to another architecture?",
    (FROZEN, BOTH, _LORA, FROZEN.on(SECOND), BOTH.on(SECOND), _LORA.on(SECOND)),
    (OLD_WORDS_NEW_LOOKS, OLD_LOOKS_NEW_GRAMMAR),
)
EXPERIMENTS: dict[str, Experiment] = {
    e.name: e for e in (GROUPS, BASELINES, SCALE, GRID, LOSS, FUSION, ARCHITECTURES)
}


def sweep_specs(experiments: Iterable[Experiment], size: Size) -> Iterator[tuple[Arm, float, RunSpec]]:
    """(arm, rate, run) of every sweep that the experiments need, measured on validation clips."""
    seen: set[tuple[str, str]] = set()
    for experiment in experiments:
        for arm, domain in product(experiment.arms, experiment.swept_on):
            if arm.method == "frozen" or arm.tuned_as or (arm.name, domain) in seen:
                continue
            seen.add((arm.name, domain))
            for rate in LEARNING_RATES:
                yield arm, rate, run_spec(arm, domain, SWEEP_SEED, rate, size, "validation")


def compared_specs(experiment: Experiment, seeds: int, rates: Rates, size: Size) -> Iterator[RunSpec]:
    """The runs behind an experiment's rows, with each arm's swept rate, measured on test clips."""
    for arm in experiment.arms:
        for domain in experiment.domains:
            rate = rates.get((arm.tuned_as or arm.name, SWEPT_ON.get(domain, domain)), LEARNING_RATES[0])
            for seed in range(1 if arm.method == "frozen" else seeds):  # nothing is drawn without training
                yield run_spec(arm, domain, seed, rate, size, "test")


def times_of(domain: str, size: Size) -> float:
    """How many times the smallest number of clips a domain takes to be learned."""
    if domain in NEW_WORDS:
        return size.new_words
    return size.new_looks if domain == OLD_WORDS_NEW_LOOKS else 1.0


def run_spec(arm: Arm, domain: str, seed: int, rate: float, size: Size, split: str) -> RunSpec:
    """One run of an arm."""
    frozen = arm.method == "frozen"
    clips = round(size.clips * times_of(domain, size))
    return RunSpec(
        arm=arm.name,
        method=arm.method,
        domain=domain,
        seed=seed,
        clips=0 if frozen else clips,
        measured_clips=size.test_clips if split == "test" else size.validation_clips,
        split=split,
        batch_size=size.batch_size,
        max_frames=size.max_frames,
        settings={} if frozen else {**arm.settings, "schedule.matrix_lr": rate},
        architecture=arm.architecture,
    )
