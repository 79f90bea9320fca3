"""`visum ablate specialize`: one adapter over several domains, trained once a seed, taken apart, told in words."""

from __future__ import annotations

import json
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from model_store.backbone import load_backbone
from training.experiments.catalogue import (
    OLD_LOOKS_NEW_GRAMMAR,
    OLD_WORDS_NEW_LOOKS,
    TRAINED,
    run_spec,
    times_of,
)
from training.experiments.execute import config_of, peak_mib
from training.experiments.runner import Machine
from training.experiments.spec import Arm, Size
from training.experiments.specialization import (
    attributes_of,
    gates_of,
    knock_outs,
    knowledge,
    mean_similarity,
    spread_by_attribute,
    verdict,
)
from training.trainer.fast import FastPass
from training.trainer.job import TrainingJob
from training.trainer.method import Milora
from training.trainer.passes import Pair
from training.trainer.quality import judge
from training.trainer.samples import VideoSample
from training.trainer.world_samples import WorldSamples
from training.world import Clip, Split
from training.world.scoring import score_facts

DOMAINS = (OLD_WORDS_NEW_LOOKS, OLD_LOOKS_NEW_GRAMMAR, TRAINED)
GATE_CLIPS, ANSWERED_CLIPS = 60, 24  # of each domain
_RATE = 1e-2
_ANSWER_TOKENS = 80


class MixedSamples:
    """The samples of several domains as one set."""

    def __init__(self, parts: Sequence[WorldSamples]) -> None:
        self.parts = parts
        self._places = [(part, index) for part in parts for index in range(len(part))]

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int) -> VideoSample:
        part, inner = self._places[index]
        return part[inner]

    def clip(self, index: int) -> Clip:
        """The script behind a sample."""
        part, inner = self._places[index]
        return part.clip(inner)

    @property
    def names(self) -> Sequence[str]:
        return [name for part in self.parts for name in part.names]

    @property
    def contents(self) -> Sequence[str]:
        return self.names

    @property
    def frame_counts(self) -> Sequence[int]:
        return [count for part in self.parts for count in part.frame_counts]


def mixed(split: Split, clips: Mapping[str, int], size: Size, cache: Path | None) -> MixedSamples:
    """So many clips of each domain."""
    return MixedSamples(
        [
            WorldSamples(name, split, count, max_frames=size.max_frames, cache=cache)
            for name, count in clips.items()
        ]
    )


def to_learn(size: Size) -> dict[str, int]:
    """Training clips of each domain."""
    return {name: round(size.clips * times_of(name, size)) for name in DOMAINS}


def write_specialization(machine: Machine, size: Size, out: Path, command: str, seeds: int = 3) -> Path:
    """Trains what is not trained yet, takes each adapter apart, writes ``specialize.json``, ``.md``, ``.svg``."""
    torch.set_num_threads(machine.side_by_side * machine.threads)
    taken = [_one_seed(machine, size, seed) for seed in range(seeds)]
    out.mkdir(parents=True, exist_ok=True)
    report = {
        "experiment": "specialize",
        "question": "Do experts specialize?",
        "command": command,
        "domains": list(DOMAINS),
        "rows": [one["row"] for one in taken],
        "seeds": taken,
    }
    (out / "specialize.json").write_text(json.dumps(report, indent=1) + "\n")
    (out / "specialize.md").write_text(_page(report))
    _plot(taken[0], out / "specialize.svg")
    return out / "specialize.md"


def _one_seed(machine: Machine, size: Size, seed: int) -> dict[str, Any]:
    """The analysis of one seed's adapter, kept in a folder among the runs."""
    spec = run_spec(Arm("specialize"), "+".join(DOMAINS), seed, _RATE, size, "test")
    learned = "-".join(str(count) for count in to_learn(size).values())
    of = machine.fingerprint(machine.backbone)[:10]
    path = machine.runs / "specialize" / f"{learned}-{spec.key.rsplit('-', 1)[1]}-{of}.json"
    if path.exists():
        return json.loads(path.read_text())
    config = config_of(spec)
    loaded = load_backbone(machine.backbone, device="cpu", dtype=torch.float32)
    method = Milora(loaded.model.to(torch.bfloat16), config)
    forward = FastPass(loaded.model, loaded.processor.tokenizer)
    train = mixed("train", to_learn(size), size, machine.cache)
    with TemporaryDirectory() as folder:
        job = TrainingJob(
            loaded.model, method, forward, config, train=train, validation=None, folder=Path(folder),
            instruction=loaded.manifest.prompt,
        )  # fmt: skip
        seconds = job.run_to_end().seconds
    method.module.eval()
    found = take_apart(method, forward, size, machine.cache, loaded.manifest.prompt)
    frozen_parameters = sum(p.numel() for p in loaded.model.parameters())
    found["row"] |= {
        "arm": f"both, seed {seed}",
        "domain": "+".join(DOMAINS),
        "seeds": 1,
        "trainable_share": round(method.export().parameters() / frozen_parameters, 5),
        "train_s": round(seconds, 1),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(found, indent=1) + "\n")
    partial.replace(path)
    return found


def take_apart(
    method: Milora, forward: FastPass, size: Size, cache: Path, instruction: str
) -> dict[str, Any]:
    """Gates, information, removals and similarity of a trained adapter, as JSON, with the verdict."""
    looked_at = mixed("test", dict.fromkeys(DOMAINS, GATE_CLIPS), size, cache)
    pairs = [Pair.of(looked_at[index], instruction) for index in range(len(looked_at))]
    attributes = [attributes_of(looked_at.clip(index)) for index in range(len(looked_at))]
    gates = gates_of(method, forward, pairs)
    known = knowledge(method.handle, gates, attributes)
    answered = mixed("test", dict.fromkeys(DOMAINS, ANSWERED_CLIPS), size, cache)
    asked = [Pair.of(answered[index], instruction) for index in range(len(answered))]
    clips = [answered.clip(index) for index in range(len(answered))]
    whole, removed = knock_outs(method, forward, asked, clips, _ANSWER_TOKENS)
    facts = sum((score_facts("", clip).total for clip in clips), Counter())
    decided = verdict(known, removed, facts)
    rouge_l = judge(answered, forward.answers(asked, method, _ANSWER_TOKENS)).rouge_l
    likeness = {group: mean_similarity(method.handle, group) for group in method.handle.config.groups}
    return {
        "verdict": decided.name,
        "words": decided.words,
        "row": {
            "rouge_l": {"mean": rouge_l, "low": rouge_l, "high": rouge_l},
            "fact_f1": {"mean": whole.f1, "low": whole.f1, "high": whole.f1},
            "peak_mib": round(peak_mib()),
        },
        "facts": asdict(whole),
        "facts_asked": facts,
        "information": [asdict(one) for one in known],
        "knock_out": [asdict(one) for one in removed],
        "similarity": {
            group: {"experts": mean, "by_chance": chance} for group, (mean, chance) in likeness.items()
        },
        "mean_gates": {name: [round(v, 4) for v in own.mean(0).tolist()] for name, own in gates.items()},
        "gate_spread": {
            attribute: {
                name: [
                    round(v, 4) for v in spread_by_attribute(own, [a[attribute] for a in attributes]).tolist()
                ]
                for name, own in gates.items()
            }
            for attribute in attributes[0]
        },
    }


def _page(report: Mapping[str, Any]) -> str:
    taken = report["seeds"]
    lines = [f"# specialize: {report['question']}", "", "```", report["command"], "```", ""]
    lines += [f"- seed {seed}: **{one['verdict']}**. {one['words']}" for seed, one in enumerate(taken)]
    lines += ["", f"One adapter over {', '.join(report['domains'])}, per seed. What gates know, in bits, mean over a "
              "group's layers and seeds, beyond chance and within a domain; *video* is all that they know, *domain* "
              "which of the three.", ""]  # fmt: skip
    names = list(taken[0]["information"][0]["of_attribute"])
    lines += [f"| group | video | {' | '.join(names)} |", "|---" * (len(names) + 2) + "|"]
    for group in taken[0]["similarity"]:
        layers = [layer for one in taken for layer in one["information"] if layer["group"] == group]
        bits = [statistics.fmean(layer["of_attribute"][name] for layer in layers) for name in names]
        of_video = statistics.fmean(layer["of_video"] for layer in layers)
        lines.append(f"| {group} | {of_video:.4f} | {' | '.join(f'{value:.4f}' for value in bits)} |")
    kinds = list(taken[0]["knock_out"][0]["lost"])
    lines += ["", "Recall lost without one expert in all layers of its group, and without as many ranks of all:", "",
              f"| group | without | {' | '.join(kinds)} |", "|---" * (len(kinds) + 2) + "|"]  # fmt: skip
    for place, one in enumerate(taken[0]["knock_out"]):
        lost = [statistics.fmean(seed["knock_out"][place]["lost"][kind] for seed in taken) for kind in kinds]
        lines.append(f"| {one['group']} | {one['what']} | {' | '.join(f'{value:+.3f}' for value in lost)} |")
    lines += ["", "Similarity of two experts' updates (1: the same directions):", "",
              "| group | experts | by chance |", "|---|---|---|"]  # fmt: skip
    for group in taken[0]["similarity"]:
        mean = statistics.fmean(one["similarity"][group]["experts"] for one in taken)
        chance = taken[0]["similarity"][group]["by_chance"]
        lines.append(f"| {group} | {mean:.3f} | {chance:.3f} |")
    lines += ["", "How far each expert's mean gate differs between an attribute's values, by layer (seed 0):", "",
              "![specialize](specialize.svg)", ""]  # fmt: skip
    return "\n".join(lines)


def _plot(found: Mapping[str, Any], path: Path) -> None:
    """Heat maps, layer × expert: the mean gate, and its spread over each attribute's values."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "visum"
    from matplotlib import pyplot

    maps = {"mean gate": found["mean_gates"], **found["gate_spread"]}
    figure, axes = pyplot.subplots(
        1, len(maps), figsize=(2.2 * len(maps), 7), sharey=True, layout="constrained"
    )
    for axis, (title, by_layer) in zip(axes, maps.items(), strict=True):
        width = max(len(row) for row in by_layer.values())
        table = [row + [float("nan")] * (width - len(row)) for row in by_layer.values()]
        image = axis.imshow(table, aspect="auto", cmap="viridis", vmin=0)
        figure.colorbar(image, ax=axis, location="bottom", pad=0.02).ax.tick_params(labelsize=6)
        axis.set_title(title, fontsize=9)
        axis.set_xticks(range(width), range(1, width + 1), fontsize=7)
        axis.set_xlabel("expert", fontsize=8)
    short = [name.replace("model.", "").replace("encoder.layers", "layers") for name in found["mean_gates"]]
    axes[0].set_yticks(range(len(short)), short, fontsize=6)
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)
