"""`visum ablate cost`: what gate and fusion cost by themselves when answering, in time and in memory.

Four ways of the same prefill and of the same decode step, measured in turns: the frozen backbone, the experts as one
LoRA of rank K·r with even weights that are given, the experts with given gates, and the experts with gates computed.
What the last takes beyond the one before is the gate; what given gates take beyond even weights is the weighing and
the fusion.
"""

from __future__ import annotations

import json
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from milora import GateRecord
from model_store.backbone import load_backbone
from training.experiments.runner import Machine
from training.experts.recipe import world_config
from training.trainer.fast import FastPass
from training.trainer.method import Milora
from training.trainer.passes import Pair
from training.trainer.world_samples import WorldSamples

_ROUNDS, _WARM = 30, 3
_BATCHES = (1, 8)
_FRAMES = 6


def write_cost(machine: Machine, out: Path, command: str) -> Path:
    """Measures and writes ``cost.json`` and ``cost.md``."""
    torch.set_num_threads(machine.threads)
    rows = [row for batch in _BATCHES for row in measure(machine, batch)]
    report = {
        "experiment": "cost",
        "question": "What do gate and fusion cost by themselves?",
        "command": command,
        "machine": f"{machine.threads} CPU thread, {platform.machine()}, torch {torch.__version__}, bfloat16",
        "rows": rows,
        "memory": memory(machine),
    }
    out.mkdir(parents=True, exist_ok=True)
    (out / "cost.json").write_text(json.dumps(report, indent=1) + "\n")
    (out / "cost.md").write_text(_page(report))
    return out / "cost.md"


def _adapted(machine: Machine) -> tuple[Milora, FastPass]:
    loaded = load_backbone(machine.backbone, device="cpu", dtype=torch.float32)
    method = Milora(loaded.model.to(torch.bfloat16), world_config())
    for layer in method.handle.layers:  # as served: A and B in bfloat16, gates in float32
        layer.A.data, layer.B.data = layer.A.data.bfloat16(), layer.B.data.bfloat16()
    method.module.eval()
    return method, FastPass(loaded.model, loaded.processor.tokenizer)


@torch.no_grad()  # not inference mode: what the passes keep for later must serve a training too
def measure(machine: Machine, batch: int) -> list[dict[str, Any]]:
    """Median milliseconds of a prefill for each way, over one batch of prompts of six frames."""
    method, forward = _adapted(machine)
    samples = WorldSamples("traffic", "test", 60, max_frames=_FRAMES, cache=machine.cache)
    chosen = [index for index, frames in enumerate(samples.frame_counts) if frames == _FRAMES][:batch]
    pairs = [Pair.of(samples[index], "Summarize the video.") for index in chosen]
    read = forward.read(pairs)
    rows = forward.rows(read)
    handle = method.handle

    def run() -> None:
        forward.loss(read, None)

    with handle.training_pass(**rows) as computed:
        run()
    records = handle.records(computed)
    even = [_even(record) for record in records]

    def routed(make: Callable[[], Any]) -> None:
        with handle.use(make()):
            run()

    ways: dict[str, Callable[[], None]] = {
        "frozen backbone": run,
        "experts, even weights": lambda: routed(lambda: _given(handle, even, rows)),
        "experts, given gates": lambda: routed(lambda: _given(handle, records, rows)),
        "experts, gates computed": lambda: routed(lambda: handle.route([1] * batch, **rows)),
    }
    times: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(_ROUNDS + _WARM):
        for name, way in ways.items():
            started = time.perf_counter()
            way()
            if turn >= _WARM:
                times[name].append((time.perf_counter() - started) * 1e3)
    return [
        {
            "arm": name,
            "domain": "traffic",
            "seeds": 1,
            "rouge_l": None,
            "fact_f1": None,
            "trainable_share": None,
            "train_s": None,
            "peak_mib": None,
            "batch": batch,
            "prefill_ms": round(statistics.median(own), 2),
            "prefill_ms_quartiles": [
                round(q, 2) for q in (statistics.quantiles(own, n=4)[0], statistics.quantiles(own, n=4)[2])
            ],
        }
        for name, own in times.items()
    ]


def _given(handle, records: list[GateRecord], rows: dict[str, Any]):
    """A routing over whole prompts whose gates are not computed."""
    routing = handle.route([1] * len(records), **rows)
    routing.given = torch.stack([record.gates for record in records], dim=1)  # (L, V, K)
    return routing


def _even(record: GateRecord) -> GateRecord:
    return replace(record, gates=torch.full_like(record.gates, 1 / record.gates.shape[1]))


def memory(machine: Machine) -> dict[str, Any]:
    """Bytes of what an adapter keeps, as served: A and B in bfloat16, gates in float32."""
    method, _ = _adapted(machine)
    state = method.export()
    experts = sum(2 * (layer.A.numel() + layer.B.numel()) for layer in state.layers.values())
    gates = sum(4 * (layer.G.numel() + layer.b.numel()) for layer in state.layers.values())
    per_request = sum(4 * layer.experts for layer in method.handle.layers)
    return {
        "experts_bytes": experts,
        "gates_bytes": gates,
        "fusion_bytes": 4,
        "gates_share": round(gates / (experts + gates), 4),
        "gates_bytes_a_request": per_request,
    }


def _page(report: dict[str, Any]) -> str:
    lines = [f"# cost: {report['question']}", "", "```", report["command"], "```", "",
             f"One prefill with {_FRAMES} frames a video, the answer's tokens included; median of {_ROUNDS}, measured "
             f"in turns. {report['machine']}.", "",
             "| videos | way | ms | over the frozen backbone |", "|---|---|---|---|"]  # fmt: skip
    for row in report["rows"]:
        base = next(r for r in report["rows"] if r["batch"] == row["batch"])["prefill_ms"]
        lines.append(
            f"| {row['batch']} | {row['arm']} | {row['prefill_ms']:.1f} | {row['prefill_ms'] / base - 1:+.1%} |"
        )
    for batch in _BATCHES:
        ms = {row["arm"]: row["prefill_ms"] for row in report["rows"] if row["batch"] == batch}
        gate = ms["experts, gates computed"] - ms["experts, given gates"]
        lines += [
            "",
            f"With {batch} at a time the gate alone takes {gate:.2f} ms; it is computed once a request.",
        ]
    kept = report["memory"]
    lines += [
        "",
        f"An adapter keeps {kept['experts_bytes'] / 2**20:.2f} MiB of experts, {kept['gates_bytes'] / 2**10:.0f} KiB "
        f"of gates ({kept['gates_share']:.1%}) and {kept['fusion_bytes']} bytes of fusion;",
        f"a request keeps {kept['gates_bytes_a_request']} bytes of gates while it is answered.",
        "",
    ]
    return "\n".join(lines)
