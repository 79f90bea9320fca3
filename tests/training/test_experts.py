"""The shipped experts: the forward pass against the stock model, and a domain from backbone to published adapter."""

from __future__ import annotations

import errno
from dataclasses import replace

import pytest
import torch

from milora import inject
from model_store.adapters import load_adapter
from model_store.backbone import load_backbone
from model_store.registry import AdapterRegistry
from tests.tiny_backbone import write_tiny_backbone
from tests.training.trainer_process import RandomSamples
from training.backbone.batches import collate
from training.backbone.pixels import normalize, patchify
from training.backbone.rendering import render_sample
from training.backbone.sampling import PATCH, PATCH_COLUMNS, PATCH_ROWS, PATCHES_PER_FRAME
from training.experts.forward import AdaptedForward
from training.experts.recipe import world_config, world_plan
from training.trainer.config import TrainConfig
from training.trainer.errors import InvalidConfig, RunExists, WriteFailed
from training.trainer.fast import FastPass
from training.trainer.run import choose_forward, train_and_publish
from training.trainer.stock import StockPass
from workers.expert_room import adapter_state

CONFIG = world_config(
    None,
    **{
        "schedule.tokens_per_batch": 1500,
        "schedule.warmup_steps": 1,
        "watch.calibration_clips": 8,
        "watch.validation_clips": 2,
        "watch.mark_clips": 4,
        "watch.evaluate_every": 0,
        "watch.answer_tokens": 24,
        "machine.threads": 1,
        "machine.device": "cpu",
        "temporal.top_k": 2,
    },
)


@pytest.fixture
def backbone():
    return load_backbone("visum-demo", device="cpu")


def plan_of(tmp_path, config: TrainConfig = CONFIG, **options):
    return world_plan(
        "traffic",
        config,
        backbone=options.pop("backbone", "visum-demo"),
        folder=tmp_path / "run",
        roots=(tmp_path / "adapters",),
        command="visum train",
        clips=32,
        **options,
    )


def _noisy_experts(model, config: TrainConfig):
    """Experts whose B is no longer zero, so that they matter."""
    handle = inject(model, config.milora(), seed=3)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for layer in handle.layers:
            layer.B.normal_(0, 0.02, generator=generator)
    return handle


def test_the_adapted_forward_gives_the_stock_models_logits_under_the_same_routing(backbone) -> None:
    model, tokenizer = backbone.model, backbone.processor.tokenizer
    samples = [s for s in (render_sample("traffic", i, "train") for i in range(40)) if len(s.times_s) == 8][
        :2
    ]
    batch = collate(samples, tokenizer, "Summarize the video.")
    handle = _noisy_experts(model, CONFIG)
    patches = patchify(normalize(batch.frames))  # (F, 48, 192)
    videos, frames = batch.frames.shape[:2]
    ids = torch.cat([batch.prompt, batch.answer[:, :-1]], 1)
    mask = torch.zeros_like(ids, dtype=torch.bool)
    mask[:, : batch.prompt.shape[1]] = True
    counts = [frames * PATCHES_PER_FRAME] * videos
    with torch.no_grad():
        with handle.training_pass(prompt_mask=mask, patches=counts):
            ours = AdaptedForward(model).answer_logits(patches, batch.prompt, batch.answer)
        with handle.training_pass(prompt_mask=mask, patches=counts):
            stock = model(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                pixel_values_videos=patches.reshape(-1, 3 * PATCH * PATCH),
                video_grid_thw=torch.tensor([[frames, PATCH_ROWS, PATCH_COLUMNS]] * videos),
                video_merge_sizes=torch.tensor([2] * videos),
            ).logits[:, -batch.answer.shape[1] :]
    torch.testing.assert_close(ours, stock, atol=1e-4, rtol=1e-4)


def test_a_published_adapter_loads_and_carries_what_was_trained(backbone, tmp_path) -> None:
    told: list[str] = []
    entry, outcome = train_and_publish(plan_of(tmp_path), told.append)
    loaded = load_adapter(
        entry, backbone_fingerprint=backbone.fingerprint, module_shapes=backbone.module_shapes
    )
    manifest, state = loaded.manifest, adapter_state(loaded)
    assert manifest.trainable_parameters == state.parameters() == outcome.trainable
    assert told == ["428,801 of the numbers are trained, 9.21% of the backbone's"]
    assert manifest.trainable_share == pytest.approx(0.0921, abs=1e-4)
    assert state.groups["temporal"].top_k == 2
    assert state.groups["spatial"].top_k == 0
    assert manifest.training["clips"] == 32
    assert manifest.quality["measured_on"].startswith("2 clips")
    assert {"rouge_l", "frozen_rouge_l", "fact_f1"} <= set(manifest.quality)
    assert set(loaded.prototype) == {"mean", "covariance"}
    assert (entry.path / "README.md").read_text().startswith("# traffic")
    assert (tmp_path / "run" / "log.csv").exists()
    assert list((tmp_path / "run" / "tensorboard").iterdir())
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_an_unfinished_run_is_neither_gone_over_nor_mistaken(tmp_path) -> None:
    left = tmp_path / "run" / "checkpoints" / "step-00000003"
    left.mkdir(parents=True)
    with pytest.raises(RunExists, match=r"--resume.*--fresh"):
        train_and_publish(plan_of(tmp_path), lambda line: None)
    assert left.exists()


def test_a_target_that_matches_no_module_is_named_before_anything_is_trained(tmp_path) -> None:
    config = CONFIG.model_copy(
        update={"temporal": CONFIG.temporal.model_copy(update={"targets": ("nowhere.*",)})}
    )
    with pytest.raises(InvalidConfig, match=r"temporal target 'nowhere\.\*' matches no module"):
        train_and_publish(plan_of(tmp_path, config), lambda line: None)
    assert AdapterRegistry([tmp_path / "adapters"]).domains() == []


def test_a_name_that_is_no_domains_is_refused_before_the_training(tmp_path) -> None:
    plan = plan_of(tmp_path)
    broken = replace(plan, about=replace(plan.about, domain="No Domain"))
    with pytest.raises(InvalidConfig, match="'No Domain' is no domain"):
        train_and_publish(broken, lambda line: None)
    assert not (tmp_path / "run").exists()


def test_a_folder_of_adapters_that_cannot_be_made_is_told_before_the_training(tmp_path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(WriteFailed, match=r"folder of adapters .*file"):
        train_and_publish(replace(plan_of(tmp_path), roots=(tmp_path / "file",)), lambda line: None)
    assert not (tmp_path / "run").exists()


def test_a_disk_that_is_full_when_an_adapter_is_published_leaves_the_last_steps_checkpoint(
    tmp_path, monkeypatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("training.trainer.publishing.publish", full)
        with pytest.raises(WriteFailed, match=r"the adapter in .* No space left .* last good checkpoint is"):
            train_and_publish(plan_of(tmp_path), lambda line: None)
    assert AdapterRegistry([tmp_path / "adapters"]).domains() == []
    entry, _ = train_and_publish(replace(plan_of(tmp_path), resume=True), lambda line: None)
    assert entry.version == 1


def test_another_backbone_takes_the_stock_pass_and_the_fast_one_is_refused_by_name(tmp_path) -> None:
    tiny = load_backbone(write_tiny_backbone(tmp_path / "tiny"), device="cpu")
    assert isinstance(choose_forward(tiny, CONFIG, RandomSamples(2)), StockPass)
    fast = CONFIG.model_copy(update={"machine": CONFIG.machine.model_copy(update={"forward": "fast"})})
    with pytest.raises(InvalidConfig, match=r"machine\.forward = 'fast'"):
        choose_forward(tiny, fast, RandomSamples(2))


def test_the_demo_backbone_takes_the_fast_pass(backbone, tmp_path) -> None:
    assert isinstance(choose_forward(backbone, CONFIG, plan_of(tmp_path).train), FastPass)


def test_a_domain_that_the_world_does_not_have_is_refused(tmp_path) -> None:
    with pytest.raises(ValueError, match="no domain 'moon'"):
        world_plan("moon", CONFIG, backbone="b", folder=tmp_path, roots=(), command="")
