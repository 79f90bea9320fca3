"""Putting another adapter on the model: the bank's way and peft's ways."""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Callable
from itertools import count
from pathlib import Path

from peft import PeftModel
from peft.utils.hotswap import hotswap_adapter
from safetensors.torch import load_file, save_file

from benchmarks.plan import Plan
from benchmarks.report import Comparison
from benchmarks.side_by_side import Arm, Metric, take_turns
from benchmarks.subject import Subject, experts_for, read_state
from milora import AdapterBank
from model_store.manifest import CONFIG_FILE, WEIGHTS_FILE
from model_store.registry import AdapterEntry

EXCHANGE = Metric("one exchange", "ms", higher_is_better=False)
FROM_MEMORY, FROM_DISK = "bank, from memory", "bank, from disk with every check"
PEFT_LOAD, PEFT_LEAN = "peft load_adapter", "peft load_adapter, low_cpu_mem_usage"
PEFT_SWAP = "peft hotswap_adapter"
SLOTS = 2
"""Fewer than there are domains: going round the domains, every acquisition finds its adapter evicted."""

Exchange = Callable[[AdapterEntry], float]
"""Makes an adapter the one that answers; the seconds it took."""


def exchange(subject: Subject, plan: Plan) -> Comparison:
    """The bank against peft, from memory and from disk."""
    with warnings.catch_warnings():
        # peft asks transformers by a name that transformers is about to drop.
        warnings.simplefilter("ignore", FutureWarning)
        ways = {
            PEFT_LOAD: _peft_load(subject, low_cpu_mem_usage=False),
            PEFT_LEAN: _peft_load(subject, low_cpu_mem_usage=True),
            PEFT_SWAP: _peft_hotswap(subject),
            FROM_DISK: _bank(subject, from_disk=True),
            FROM_MEMORY: _bank(subject, from_disk=False),
        }
        arms = {name: _arm(way, subject.entries, plan.exchanges) for name, way in ways.items()}
        samples = take_turns(arms, rounds=plan.exchange_rounds)
    pairs = [
        (FROM_MEMORY, PEFT_LOAD),
        (FROM_MEMORY, PEFT_LEAN),
        (FROM_MEMORY, PEFT_SWAP),
        (FROM_DISK, PEFT_LOAD),
        (FROM_DISK, PEFT_LEAN),
        (FROM_DISK, PEFT_SWAP),
    ]
    return Comparison(
        key="exchange",
        title="Exchanging an adapter",
        how=f"{plan.exchanges} exchanges a round, going round the domains so that none is resident when its turn "
        "comes. The bank evicts and writes a slot; peft loads and activates, and what it then has to delete is "
        "not counted. peft reads A and B; the bank brings the gates too and from disk verifies every hash, "
        "shape and number. `hotswap_adapter` wants one alpha for all, and gets copies whose B makes up for it.",
        rows=tuple(samples.row(ours, theirs, EXCHANGE) for ours, theirs in pairs),
    )


def _arm(way: Exchange, entries: tuple[AdapterEntry, ...], times: int) -> Arm:
    turn = count()

    def run(_: int) -> dict[Metric, float]:
        seconds = [way(entries[next(turn) % len(entries)]) for _ in range(times)]
        return {EXCHANGE: 1000 * sum(seconds) / times}

    return run


def _bank(subject: Subject, *, from_disk: bool) -> Exchange:
    backbone = subject.load()
    bank = AdapterBank(experts_for(subject, backbone, SLOTS))
    states = subject.states(backbone)

    def swap(entry: AdapterEntry) -> float:
        misses = bank.stats.misses
        began = time.perf_counter()
        bank.acquire(entry.key, lambda: read_state(entry, backbone) if from_disk else states[entry.domain])
        seconds = time.perf_counter() - began
        bank.release(entry.key)
        if bank.stats.misses != misses + 1:
            raise RuntimeError(f"{entry.domain} was still resident: nothing was exchanged")
        return seconds

    return swap


def _peft_load(subject: Subject, *, low_cpu_mem_usage: bool) -> Exchange:
    model = _peft_model(subject)
    numbers = count()

    def swap(entry: AdapterEntry) -> float:
        before, name = model.active_adapter, f"{entry.domain}-{next(numbers)}"
        began = time.perf_counter()
        model.load_adapter(str(entry.path), adapter_name=name, low_cpu_mem_usage=low_cpu_mem_usage)
        model.set_adapter(name)
        seconds = time.perf_counter() - began
        model.delete_adapter(before)
        return seconds

    return swap


def _peft_hotswap(subject: Subject) -> Exchange:
    alike = _with_equal_alphas(subject.entries, subject.scratch / "hotswap")
    model = PeftModel.from_pretrained(subject.load().model, alike[subject.domains[-1]], adapter_name="first")

    def swap(entry: AdapterEntry) -> float:
        began = time.perf_counter()
        hotswap_adapter(model, alike[entry.domain], adapter_name="first")
        return time.perf_counter() - began

    return swap


def _with_equal_alphas(entries: tuple[AdapterEntry, ...], folder: Path) -> dict[str, str]:
    """Copies that do what the adapters do under one alpha a layer: peft exchanges no others in place."""
    configs = {entry.domain: json.loads((entry.path / CONFIG_FILE).read_text()) for entry in entries}
    wanted = configs[entries[0].domain]["alpha_pattern"]
    copies = {}
    for entry in entries:
        config, tensors = configs[entry.domain], load_file(entry.path / WEIGHTS_FILE)
        for module, alpha in config["alpha_pattern"].items():
            tensors[f"base_model.model.{module}.lora_B.weight"] *= alpha / wanted[module]
        copy = folder / entry.domain
        copy.mkdir(parents=True)
        (copy / CONFIG_FILE).write_text(json.dumps({**config, "alpha_pattern": wanted}))
        save_file(tensors, copy / WEIGHTS_FILE, metadata={"format": "pt"})
        copies[entry.domain] = str(copy)
    return copies


def _peft_model(subject: Subject) -> PeftModel:
    """peft over a copy of the backbone, with the last domain's adapter on it."""
    last = subject.entries[-1]
    return PeftModel.from_pretrained(subject.load().model, str(last.path), adapter_name="first").eval()
