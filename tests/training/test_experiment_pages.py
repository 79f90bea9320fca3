"""`cost` and `specialize` from the backbone to their pages, with few clips and rounds."""

from __future__ import annotations

import json

import pytest
import torch

from model_store.backbone import load_backbone
from training.experiments import cost, specialize
from training.experiments.catalogue import BASELINES, compared_specs
from training.experiments.runner import Machine, estimate_s
from training.experiments.spec import Size
from training.experiments.specialization import KnockOut, gates_of, knock_outs
from training.experts.recipe import world_config
from training.trainer.fast import FastPass
from training.trainer.method import Milora
from training.trainer.passes import Pair

SIZE = Size(clips=16, new_looks=1.0, new_words=1.0)


@pytest.fixture
def machine(tmp_path) -> Machine:
    return Machine(tmp_path / "runs", tmp_path / "clips", "visum-demo", side_by_side=1)


def test_the_cost_of_gates_is_measured_beside_the_same_pass_without_them(
    machine, tmp_path, monkeypatch
) -> None:
    monkeypatch.setattr(cost, "_ROUNDS", 2)
    monkeypatch.setattr(cost, "_WARM", 0)
    monkeypatch.setattr(cost, "_BATCHES", (1,))
    cost.write_cost(machine, tmp_path, "visum ablate cost")
    report = json.loads((tmp_path / "cost.json").read_text())
    assert [row["arm"] for row in report["rows"]] == [
        "frozen backbone", "experts, even weights", "experts, given gates", "experts, gates computed"
    ]  # fmt: skip
    assert all(row["prefill_ms"] > 0 for row in report["rows"])
    assert 0 < report["memory"]["gates_share"] < 0.5
    assert "the gate alone takes" in (tmp_path / "cost.md").read_text()


def test_an_adapter_is_trained_once_taken_apart_and_told_in_words(machine, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(specialize, "GATE_CLIPS", 4)
    monkeypatch.setattr(specialize, "ANSWERED_CLIPS", 1)
    monkeypatch.setattr(specialize, "_ANSWER_TOKENS", 12)
    specialize.write_specialization(machine, SIZE, tmp_path, "visum ablate specialize", seeds=1)
    report = json.loads((tmp_path / "specialize.json").read_text())
    (seed,) = report["seeds"]
    assert seed["verdict"] in ("specialists", "partly", "ensemble")
    assert {one["what"] for one in seed["knock_out"]} == {f"expert {k}" for k in range(1, 5)} | {
        "as much of all"
    }
    assert set(seed["gate_spread"]) == {"object", "colour", "direction", "order", "domain"}
    assert seed["verdict"] in (tmp_path / "specialize.md").read_text()
    assert (tmp_path / "specialize.svg").stat().st_size > 1000
    trained = {path: path.stat().st_mtime_ns for path in machine.runs.rglob("*.*")}
    specialize.write_specialization(machine, SIZE, tmp_path, "visum ablate specialize", seeds=1)
    assert {path: path.stat().st_mtime_ns for path in machine.runs.rglob("*.*")} == trained
    assert (
        estimate_s(machine, compared_specs(BASELINES, 1, {}, SIZE)) > 0
    )  # the next plan reads the same folder


def test_removals_leave_the_adapter_as_it_was_and_gates_sum_to_one() -> None:
    loaded = load_backbone("visum-demo", device="cpu", dtype=torch.float32)
    method = Milora(loaded.model, world_config(None, **{"temporal.rank": 1, "groups": ["temporal"]}))
    with torch.no_grad():
        for layer in method.handle.layers:
            layer.B.normal_(0, 0.05)
    method.module.eval()
    before = {name: tensor.clone() for name, tensor in method.state().items()}
    samples = specialize.mixed("test", dict.fromkeys(specialize.DOMAINS, 1), SIZE, None)
    pairs = [Pair.of(samples[index], "Summarize the video.") for index in range(len(samples))]
    forward = FastPass(loaded.model, loaded.processor.tokenizer)
    gates = gates_of(method, forward, pairs)
    assert all(torch.allclose(own.sum(1), torch.ones(len(pairs))) for own in gates.values())
    clips = [samples.clip(index) for index in range(len(samples))]
    _, removed = knock_outs(method, forward, pairs, clips, 4)
    assert all(isinstance(one, KnockOut) for one in removed)
    assert len(removed) == 5
    for name, tensor in method.state().items():
        assert torch.equal(tensor, before[name])
