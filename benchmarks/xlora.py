"""A whole answer with MiLoRA, and with peft's own mixture of LoRA experts, X-LoRA."""

from __future__ import annotations

import json
import warnings
from functools import partial
from pathlib import Path

import torch
from peft import XLoraConfig, get_peft_model
from safetensors.torch import save_file

from benchmarks.case import Case, demo_case, random_case
from benchmarks.engine_arm import WHOLE, one_slot, running, together
from benchmarks.goals import XLORA
from benchmarks.peft_arm import LANGUAGE_MODEL, batch_inputs, timed
from benchmarks.plan import Plan
from benchmarks.random_model import SMALL, Shape
from benchmarks.report import Comparison, Row
from benchmarks.side_by_side import Arm, take_turns
from benchmarks.subject import Subject
from milora import AdapterState, to_peft
from model_store.manifest import CONFIG_FILE, WEIGHTS_FILE

OURS, THEIRS = "MiLoRA", "peft X-LoRA"


def xlora(subject: Subject, plan: Plan, shape: Shape = SMALL) -> Comparison:
    """One video at a time, on the demo and on the random model in fp32."""
    ways = [
        (lambda: demo_case(subject, plan), plan.fixed_tokens // 2),
        (lambda: random_case(subject, plan, shape, torch.float32, domains=1), plan.xlora_tokens),
    ]
    rows = []
    for number, (make, tokens) in enumerate(ways):
        folder = subject.scratch / f"x-lora-{number}"
        rows.append(_compare(make().endless(), folder, tokens, plan.xlora_rounds))
    return Comparison(
        key="xlora",
        title="A whole answer beside X-LoRA",
        how=f"One video and {plan.fixed_tokens // 2} new tokens ({plan.xlora_tokens} on the random model), the stop "
        "token switched off. X-LoRA has the K experts of the same adapter as LoRAs of rank r on the language model's "
        "attention; its scalings are by token, so that it can have none on the vision tower's patches, which MiLoRA "
        "does have. `generate` runs the vision tower once for either.",
        rows=tuple(rows),
    )


def _compare(case: Case, folder: Path, tokens: int, rounds: int) -> Row:
    theirs = _xlora(case, folder, tokens)
    with running(case) as on:
        asks = one_slot(on, next(iter(on.slots.values())))[:1]
        ours: Arm = lambda _: {WHOLE: together(on, asks, tokens).tokens_per_second}  # noqa: E731
        samples = take_turns({THEIRS: theirs, OURS: ours}, rounds=rounds)
    return samples.row(OURS, THEIRS, WHOLE, model=case.name, goal=XLORA)


def _xlora(case: Case, folder: Path, tokens: int) -> Arm:
    """X-LoRA with the experts of the first domain; its classifier is fresh, which costs what a trained one does."""
    model = case.twin().model
    adapter = next(iter(case.adapters.values()))
    config = XLoraConfig(
        hidden_size=model.config.text_config.hidden_size,
        adapters=write_experts(adapter, folder),
        layerwise_scalings=True,  # a gate per layer, as ours
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of modules that it was told to adapt by name
        wrapped = get_peft_model(model, config, autocast_adapter_dtype=False).eval()
    inputs = batch_inputs([case.clips[0].prompt], model.device)

    def run(_: int) -> dict:
        # X-LoRA demands it: every token is a pass over all that came before, twice. With a cache both passes would
        # lie in one, and the second read the first.
        answer = partial(wrapped.generate, **inputs, use_cache=False)
        figures = timed(answer, inputs["input_ids"], tokens)[1]
        return {WHOLE: figures[WHOLE]}

    return run


def write_experts(state: AdapterState, folder: Path) -> dict[str, str]:
    """Every expert of the language model's layers as a PEFT LoRA of its own: "0", "1", … → folder."""
    config, tensors, _ = to_peft(state, "visum")
    group = next(iter(state.groups.values()))
    kept = {name: tensor for name, tensor in tensors.items() if LANGUAGE_MODEL in name}
    modules = [name for name in config["target_modules"] if LANGUAGE_MODEL in name]
    folders = {}
    for expert in range(group.experts):
        rows = slice(expert * group.rank, (expert + 1) * group.rank)
        part = {
            name: (tensor[rows] if ".lora_A." in name else tensor[:, rows]).contiguous()
            for name, tensor in kept.items()
        }
        own = {"r": group.rank, "target_modules": modules, "rank_pattern": {}, "alpha_pattern": {}}
        target = folder / str(expert)
        target.mkdir(parents=True)
        (target / CONFIG_FILE).write_text(json.dumps({**config, **own}))
        save_file(part, target / WEIGHTS_FILE, metadata={"format": "pt"})
        folders[str(expert)] = str(target)
    return folders
