"""Putting another adapter on the model: the bank's way and peft's ways."""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Callable, Sequence
from itertools import count
from pathlib import Path

import torch
from peft import PeftModel
from peft.utils.hotswap import hotswap_adapter
from safetensors.torch import load_file, save_file

from benchmarks.case import Case, demo_case, random_case
from benchmarks.goals import HOTSWAP, LOAD, missed
from benchmarks.peft_arm import write_lora
from benchmarks.plan import Plan
from benchmarks.random_model import SMALL, Shape
from benchmarks.report import Breakdown, Comparison, Row
from benchmarks.side_by_side import Arm, Metric, take_turns
from benchmarks.step_profile import profiled_here
from benchmarks.subject import Subject, read_state
from milora import AdapterBank, AdapterState, inject
from model_store.manifest import CONFIG_FILE, WEIGHTS_FILE
from workers.engine import Engine, EngineLimits

EXCHANGE = Metric("one exchange", "ms", higher_is_better=False)
FROM_MEMORY, FROM_DISK = "bank, from memory", "bank, from disk with every check"
PEFT_LOAD, PEFT_LEAN = "peft load_adapter", "peft load_adapter, low_cpu_mem_usage"
PEFT_SWAP = "peft hotswap_adapter"
SLOTS, DOMAINS = 2, 4
"""Fewer slots than domains: going round the domains, every acquisition finds its adapter evicted."""

Exchange = Callable[[str], float]
"""Makes a domain's adapter the one that answers; the seconds it took."""


def exchange(subject: Subject, plan: Plan, shape: Shape = SMALL) -> Comparison:
    """The bank against peft on the demo, from memory and from disk, and from memory on the random model."""
    demo = demo_case(subject, plan)
    rows, profiles = compare(
        demo, subject.scratch / "exchange-demo", plan, from_disk=_from_disk(subject, demo)
    )
    small = random_case(subject, plan, shape, torch.float32, domains=DOMAINS)
    more = compare(small, subject.scratch / "exchange-random", plan)
    return Comparison(
        key="exchange",
        title="Exchanging an adapter",
        how=f"{plan.exchanges} exchanges a round, going round {DOMAINS} domains so that none is resident when its turn "
        "comes. The bank evicts and writes a slot; peft loads and activates, and what it then has to delete is "
        "not counted. peft reads A and B; the bank brings the gates too and from disk verifies every hash, "
        "shape and number. `hotswap_adapter` wants one alpha for all, and gets copies whose B makes up for it.",
        rows=(*rows, *more[0]),
        breakdowns=(*profiles, *more[1]),
    )


def compare(
    case: Case, folder: Path, plan: Plan, *, from_disk: Exchange | None = None
) -> tuple[list[Row], list[Breakdown]]:
    """One model's ways in turns; a missed goal brings the profile of an exchange."""
    domains = list(case.adapters)[:DOMAINS]
    folders = {name: write_lora(case.adapters[name], folder / str(n)) for n, name in enumerate(domains)}
    with warnings.catch_warnings():
        # peft asks transformers by a name that transformers is about to drop.
        warnings.simplefilter("ignore", FutureWarning)
        ways = {
            PEFT_LOAD: _peft_load(case, folders, low_cpu_mem_usage=False),
            PEFT_LEAN: _peft_load(case, folders, low_cpu_mem_usage=True),
            PEFT_SWAP: _peft_hotswap(case, folders, folder / "alike"),
            FROM_MEMORY: bank_exchange(case, lambda domain: case.adapters[domain]),
        }
        if from_disk is not None:
            ways[FROM_DISK] = from_disk
        arms = {name: _arm(way, domains, plan.exchanges) for name, way in ways.items()}
        samples = take_turns(arms, rounds=plan.exchange_rounds)
    goals = {(FROM_MEMORY, PEFT_LOAD): LOAD, (FROM_MEMORY, PEFT_SWAP): HOTSWAP}
    rows = [
        samples.row(ours, theirs, EXCHANGE, model=case.name, goal=goals.get((ours, theirs)))
        for ours in ways
        if ours in (FROM_MEMORY, FROM_DISK)
        for theirs in (PEFT_LOAD, PEFT_LEAN, PEFT_SWAP)
    ]
    if not any(missed(row) for row in rows):
        return rows, []
    title = f"{case.name}: {plan.exchanges} exchanges from memory"
    return rows, [profiled_here(lambda: arms[FROM_MEMORY](0), title, times=1)]


def bank_exchange(case: Case, load: Callable[[str], AdapterState]) -> Exchange:
    """Through a bank beside an engine of its own, with the adapter wherever `load` gets it from."""
    backbone = case.twin()
    handle = inject(backbone.model, case.room, slots=SLOTS)
    bank = AdapterBank(handle)
    engine = Engine(backbone, handle, EngineLimits())  # not started: it decides how slots lie in memory

    def swap(domain: str) -> float:
        misses = bank.stats.misses
        began = time.perf_counter()
        bank.acquire(domain, lambda: load(domain))
        seconds = time.perf_counter() - began
        bank.release(domain)
        if bank.stats.misses != misses + 1 or engine.in_flight:
            raise RuntimeError(f"{domain} was still resident: nothing was exchanged")
        return seconds

    return swap


def _arm(way: Exchange, domains: Sequence[str], times: int) -> Arm:
    turn = count()

    def run(_: int) -> dict[Metric, float]:
        seconds = [way(domains[next(turn) % len(domains)]) for _ in range(times)]
        return {EXCHANGE: 1000 * sum(seconds) / times}

    return run


def _from_disk(subject: Subject, case: Case) -> Exchange:
    entries = {entry.domain: entry for entry in subject.entries}
    return bank_exchange(case, lambda domain: read_state(entries[domain], case.backbone))


def _peft_load(case: Case, folders: dict[str, str], *, low_cpu_mem_usage: bool) -> Exchange:
    model = _peft_model(case, list(folders.values())[-1])
    numbers = count()

    def swap(domain: str) -> float:
        before, name = model.active_adapter, f"{domain}-{next(numbers)}"
        began = time.perf_counter()
        model.load_adapter(folders[domain], adapter_name=name, low_cpu_mem_usage=low_cpu_mem_usage)
        model.set_adapter(name)
        seconds = time.perf_counter() - began
        model.delete_adapter(before)
        return seconds

    return swap


def _peft_hotswap(case: Case, folders: dict[str, str], copies: Path) -> Exchange:
    alike = _with_equal_alphas(folders, copies)
    model = _peft_model(case, list(alike.values())[-1])

    def swap(domain: str) -> float:
        began = time.perf_counter()
        hotswap_adapter(model, alike[domain], adapter_name="first")
        return time.perf_counter() - began

    return swap


def _with_equal_alphas(folders: dict[str, str], copies: Path) -> dict[str, str]:
    """Copies that do what the adapters do under one alpha a layer: peft exchanges no others in place."""
    configs = {domain: json.loads((Path(path) / CONFIG_FILE).read_text()) for domain, path in folders.items()}
    wanted = next(iter(configs.values()))["alpha_pattern"]
    alike = {}
    for number, (domain, config) in enumerate(configs.items()):
        tensors = load_file(Path(folders[domain]) / WEIGHTS_FILE)
        for module, alpha in config["alpha_pattern"].items():
            tensors[f"base_model.model.{module}.lora_B.weight"] *= alpha / wanted[module]
        copy = copies / str(number)
        copy.mkdir(parents=True)
        (copy / CONFIG_FILE).write_text(json.dumps({**config, "alpha_pattern": wanted}))
        save_file(tensors, copy / WEIGHTS_FILE, metadata={"format": "pt"})
        alike[domain] = str(copy)
    return alike


def _peft_model(case: Case, folder: str) -> PeftModel:
    """peft over a twin of the model, with one adapter on it."""
    return PeftModel.from_pretrained(case.twin().model, folder, adapter_name="first").eval()
