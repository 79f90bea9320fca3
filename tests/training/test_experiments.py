"""Experiments: baselines of equal size, X-LoRA as PEFT runs it, runs that are kept, rows that are what was measured."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from milora import inject
from model_store.backbone import load_backbone
from training.backbone.pixels import normalize, patchify
from training.backbone.sampling import PATCH, PATCH_COLUMNS, PATCH_ROWS
from training.experiments import report
from training.experiments.baselines import PeftLora, PeftXLora, equal_rank, mixture_parameters
from training.experiments.catalogue import (
    ARCHITECTURES,
    BASELINES,
    EXPERIMENTS,
    FUSION,
    GROUPS,
    HELD_BACK,
    SWEEP_SEED,
    compared_specs,
    sweep_specs,
)
from training.experiments.runner import Machine, RunsFailed, estimate_s, finished, run_all
from training.experiments.spec import RunSpec, Size
from training.experiments.xlora_pass import XLoraPass
from training.experts.forward import AdaptedForward
from training.experts.recipe import world_config
from training.trainer.fast import FastPass
from training.trainer.method import Milora
from training.trainer.passes import Pair
from training.trainer.stock import StockPass
from training.trainer.world_samples import WorldSamples

SIZE = Size(clips=16, test_clips=2, validation_clips=2)


@pytest.fixture
def backbone():
    return load_backbone("visum-demo", device="cpu", dtype=torch.float32)


def pairs(count: int = 2) -> list[Pair]:
    samples = WorldSamples("rewind", "train", 12, max_frames=7)
    of_six = [index for index, frames in enumerate(samples.frame_counts) if frames == 6]
    return [Pair.of(samples[index], "Summarize the video.") for index in of_six[:count]]


def waken(method, scale: float = 0.03) -> None:
    """Parts that start at zero get values, so that they matter."""
    torch.manual_seed(5)
    with torch.no_grad():
        for parameter in method.module.parameters():
            if parameter.requires_grad and not parameter.any():
                parameter.normal_(0, scale)


@pytest.mark.parametrize("kind", ["lora", "rslora", "dora"])
def test_a_baseline_trains_as_many_numbers_as_the_mixture(backbone, kind) -> None:
    config = world_config()
    wanted = mixture_parameters(backbone.model, config)
    method = PeftLora(backbone.model, config, kind)
    trained = sum(parameter.numel() for parameter in method.module.parameters())
    assert abs(trained - wanted) / wanted < 0.02
    learning = {name for name, p in backbone.model.named_parameters() if p.requires_grad}
    assert learning == set(method.module.names)


def test_the_mixtures_size_is_what_injection_gives(backbone) -> None:
    for changes in ({}, {"fusion": "per_layer"}, {"groups": ["temporal"]}):
        config = world_config(None, **changes)
        handle = inject(backbone.model, config.milora())
        kinds = handle.trainable_parameters()
        assert mixture_parameters(backbone.model, config) == sum(p.numel() for k in kinds.values() for p in k)
        handle.remove()


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_xlora_trains_as_many_numbers_as_the_mixture_to_a_tenth(backbone) -> None:
    config = world_config()
    wanted = mixture_parameters(backbone.model, config)
    method = PeftXLora(backbone.model, config)
    trained = sum(parameter.numel() for parameter in method.module.parameters())
    assert abs(trained - wanted) / wanted < 0.1


@pytest.mark.parametrize("kind", ["milora", "lora", "dora"])
def test_the_fast_pass_gives_the_stock_passes_loss_gradients_and_answers(backbone, kind) -> None:
    config = world_config(None, **{"temporal.rank": 2, "spatial.rank": 2})
    model = backbone.model
    method = Milora(model, config) if kind == "milora" else PeftLora(model, config, kind)
    waken(method)
    method.module.eval()
    losses, gradients, answers = [], [], []
    for forward in (FastPass(model, backbone.processor.tokenizer), StockPass(model, backbone.processor)):
        batch = forward.read(pairs())
        with method.training(forward.rows(batch)):
            loss = forward.loss(batch, None)
            loss.backward()
        losses.append(loss.item())
        gradients.append([p.grad.clone() for p in method.module.parameters() if p.grad is not None])
        method.module.zero_grad()
        answers.append(forward.answers(pairs(), method, 12))
    assert losses[0] == pytest.approx(losses[1], abs=1e-4)
    assert gradients[0]
    for ours, stock in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, stock, atol=1e-4, rtol=1e-3)
    assert answers[0] == answers[1]


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_the_fast_pass_of_xlora_gives_pefts_own_logits_and_its_answers_do_without_a_cache(backbone) -> None:
    method = PeftXLora(backbone.model, world_config(None, **{"temporal.rank": 2, "spatial.rank": 2}))
    waken(method, 0.1)
    forward = XLoraPass(backbone.model, backbone.processor.tokenizer, method)
    batch = forward.read(pairs())
    patches = patchify(normalize(batch.frames))
    ids = torch.cat([batch.prompt, batch.answer[:, :-1]], 1)
    with torch.no_grad():
        ours = forward.forward.answer_logits(patches, batch.prompt, batch.answer)
        stock = method.peft(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            pixel_values_videos=patches.reshape(-1, 3 * PATCH * PATCH),
            video_grid_thw=torch.tensor([[batch.frames.shape[1], PATCH_ROWS, PATCH_COLUMNS]] * 2),
            video_merge_sizes=torch.tensor([2] * 2),
        ).logits[:, -batch.answer.shape[1] :]
        with method.silent():
            frozen = AdaptedForward(backbone.model).answer_logits(patches, batch.prompt, batch.answer)
    torch.testing.assert_close(ours, stock, atol=2e-4, rtol=1e-3)
    assert (ours - frozen).abs().max() > 1e-2
    cached = forward.forward.answer(patches, batch.prompt, end=-1, limit=4)
    told = batch.prompt[:, :0]
    for _ in range(4):
        with torch.no_grad():
            x = forward.forward.embed(patches, batch.prompt, told)
            hidden = forward.forward.hidden(x, 1)
            logits = hidden[:, -1] @ backbone.model.model.language_model.embed_tokens.weight.T
        told = torch.cat([told, logits.argmax(-1, keepdim=True)], 1)
    assert cached == told.tolist()


def test_clips_are_drawn_once_and_read_as_they_were_drawn(tmp_path) -> None:
    drawn = WorldSamples("negative", "train", 5, max_frames=7, cache=tmp_path)
    fresh = WorldSamples("negative", "train", 5, max_frames=7)
    for index in range(5):
        assert np.array_equal(drawn[index].frames, fresh[index].frames)
    assert max(drawn.frame_counts) <= 7
    assert len(list(tmp_path.iterdir())) == 1


def test_the_held_back_domain_is_in_no_sweep_and_no_arm_is_compared_on_the_sweeps_seed() -> None:
    swept = [spec for _, _, spec in sweep_specs(EXPERIMENTS.values(), SIZE)]
    assert HELD_BACK not in {spec.domain for spec in swept}
    assert {spec.split for spec in swept} == {"validation"}
    for experiment in EXPERIMENTS.values():
        compared = list(compared_specs(experiment, 3, {}, SIZE))
        assert SWEEP_SEED not in {spec.seed for spec in compared}
        assert {spec.split for spec in compared} == {"test"}


def test_every_arm_is_swept_or_takes_a_swept_arms_rate() -> None:
    swept = {arm.name for arm, _, _ in sweep_specs(EXPERIMENTS.values(), SIZE)}
    for experiment in EXPERIMENTS.values():
        own = {arm.name for arm, _, _ in sweep_specs([experiment], SIZE)}
        for arm in experiment.arms:
            assert arm.method == "frozen" or (arm.tuned_as or arm.name) in own & swept


def test_a_domain_takes_its_own_rates_and_the_held_back_one_those_of_its_like() -> None:
    rates = {("both", "negative"): 1.0, ("both", "rewind"): 2.0, ("both", "traffic"): 3.0}
    taken = {
        spec.domain: spec.settings["schedule.matrix_lr"]
        for spec in compared_specs(GROUPS, 1, rates, SIZE)
        if spec.arm == "both"
    }
    assert taken == {"negative": 1.0, "rewind": 2.0, "traffic": 3.0, HELD_BACK: 3.0}


def test_runs_on_the_demo_backbone_are_shared_between_experiments_and_those_on_the_other_are_not() -> None:
    by_arm = {spec.arm: spec.key for spec in compared_specs(ARCHITECTURES, 1, {}, SIZE)}
    others = {spec.key for spec in compared_specs(BASELINES, 1, {}, SIZE)}
    assert {arm for arm, key in by_arm.items() if key in others} == {"frozen", "both", "lora"}
    assert {arm for arm, key in by_arm.items() if key not in others} == {
        "frozen, videollama2", "both, videollama2", "lora, videollama2"
    }  # fmt: skip


def test_the_key_of_a_run_on_the_demo_backbone_is_what_it_was_before_there_was_another() -> None:
    spec = next(iter(compared_specs(BASELINES, 1, {}, SIZE)))
    assert spec.key == "negative-frozen-test-s0-8ec5028739"


def test_a_run_is_trained_on_the_backbone_of_its_architecture() -> None:
    machine = Machine(Path("runs"), Path("clips"), "visum-demo", second="runs/second")
    backbones = {spec.arm: machine.backbone_of(spec) for spec in compared_specs(ARCHITECTURES, 1, {}, SIZE)}
    assert backbones["both"] == "visum-demo"
    assert backbones["both, videollama2"] == "runs/second"


def test_a_run_on_a_second_backbone_that_was_trained_anew_is_not_finished(tmp_path) -> None:
    spec = next(
        spec for spec in compared_specs(ARCHITECTURES, 1, {}, SIZE) if spec.architecture == "videollama2"
    )
    machine = Machine(tmp_path, tmp_path, "visum-demo", second=str(tmp_path))
    (tmp_path / f"{spec.key}.json").write_text(json.dumps({"backbone": "first"}))
    for fingerprint, counts in (("first", True), ("again", False)):
        (tmp_path / "visum.json").write_text(json.dumps({"fingerprint": fingerprint}))
        assert (finished(machine, spec) is not None) == counts


def test_a_finished_run_is_not_run_again_and_a_cut_off_one_is(tmp_path) -> None:
    machine = Machine(tmp_path / "runs", tmp_path / "clips", "visum-demo")
    spec = next(iter(compared_specs(BASELINES, 1, {}, SIZE)))
    assert spec.method == "frozen"
    told: list[str] = []
    first = run_all(machine, [spec], lambda key, done, total: told.append(key))
    assert told == [spec.key]
    assert first[spec.key]["quality"]["clips"] == 2
    again = run_all(machine, [spec], lambda key, done, total: told.append(key))
    assert (again, told) == (first, [spec.key])
    path = machine.runs / f"{spec.key}.json"
    path.write_text(path.read_text()[:50])
    assert finished(machine, spec) is None
    assert estimate_s(machine, [spec]) > 0


def test_a_failed_run_is_named_and_the_others_are_kept(tmp_path) -> None:
    machine = Machine(tmp_path / "runs", tmp_path / "clips", "visum-demo")
    good = next(iter(compared_specs(BASELINES, 1, {}, SIZE)))
    bad = replace(good, method="lora", clips=16, settings={"schedule.matrix_lr": -1.0})
    with pytest.raises(RunsFailed, match=bad.key):
        run_all(machine, [bad, good], lambda key, done, total: None)
    assert finished(machine, good) is not None
    assert "matrix_lr" in (machine.runs / f"{bad.key}.failed").read_text()


def test_rows_are_the_means_and_deviations_of_the_runs_and_a_page_and_a_plot_tell_them(tmp_path) -> None:
    results = {}
    for number, (_, rate, spec) in enumerate(sweep_specs([FUSION], SIZE)):
        results[spec.key] = result(spec, 0.3 + (0.2 if rate == 1e-2 else 0.0) + number / 1000)
    rates, sweep = report.best_rates([FUSION], SIZE, results)
    assert rates == {("both", domain): 1e-2 for domain in FUSION.domains}
    assert not sweep[0]["at_the_edge"]
    for spec in compared_specs(FUSION, 3, rates, SIZE):
        results[spec.key] = result(spec, 0.5 + spec.seed / 10)
    rows = report.rows_of(FUSION, 3, rates, SIZE, results)
    assert len(rows) == len(FUSION.arms) * len(FUSION.domains)
    assert rows[0]["rouge_l"] == {"mean": 0.6, "low": 0.5, "high": 0.7}
    assert rows[0]["seeds"] == 3
    report.write_report(tmp_path, FUSION, "visum ablate fusion", SIZE, rows, sweep, "2 CPU cores")
    saved = json.loads((tmp_path / "fusion.json").read_text())
    wanted = {"arm", "domain", "seeds", "rouge_l", "fact_f1", "trainable_share", "train_s", "peak_mib"}
    assert wanted <= set(saved["rows"][0])
    assert saved["command"] == "visum ablate fusion"
    assert "0.600 ± 0.100" in (tmp_path / "fusion.md").read_text()
    assert (tmp_path / "fusion.svg").stat().st_size > 1000


def test_gains_over_the_frozen_backbones_of_two_architectures_stand_side_by_side(tmp_path) -> None:
    scores = {"frozen": 0.1, "both": 0.5, "lora": 0.4,
              "frozen, videollama2": 0.2, "both, videollama2": 0.7, "lora, videollama2": 0.15}  # fmt: skip
    specs = list(compared_specs(ARCHITECTURES, 2, {}, SIZE))
    results = {spec.key: result(spec, scores[spec.arm] + spec.seed / 10) for spec in specs}
    rows = report.rows_of(ARCHITECTURES, 2, {}, SIZE, results)
    report.write_report(tmp_path, ARCHITECTURES, "visum ablate architectures", SIZE, rows, [], "2 CPU cores")
    gained = json.loads((tmp_path / "architectures.json").read_text())["gain_over_frozen"]
    assert {(one["arm"], one["architecture"]): one["rouge_l"]["mean"] for one in gained} == {
        ("both", "video_llama_3"): 0.45, ("lora", "video_llama_3"): 0.35,
        ("both", "videollama2"): 0.55, ("lora", "videollama2"): 0.0,
    }  # fmt: skip
    page = (tmp_path / "architectures.md").read_text()
    assert "| negative | both | +0.450 ± 0.071 | +0.550 ± 0.071 |" in page


def result(spec: RunSpec, score: float) -> dict:
    """What a run leaves, with one score everywhere."""
    facts = {"precision": score, "recall": score, "f1": score,
             "recall_by_attribute": dict.fromkeys(("object", "order"), score)}  # fmt: skip
    return {"spec": {"settings": dict(spec.settings)}, "quality": {"rouge_l": score, "exact": 0.0, "facts": facts},
            "trainable_share": 0.09, "train_s": 30.0, "peak_mib": 900, "fusion_alpha": 0.5, "findings": {}}  # fmt: skip


def test_equal_rank_is_at_least_one(backbone) -> None:
    small = world_config(None, **{"temporal.rank": 1, "temporal.experts": 1, "groups": ["temporal"]})
    assert equal_rank(backbone.model, small, dora=True) == 1
