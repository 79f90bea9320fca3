"""Training experts: the forward pass against the stock model, what a step may change, and the published adapter."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from milora import from_peft, inject
from milora.config import GroupConfig
from model_store.adapters import load_adapter
from model_store.backbone import load_backbone, weights_sha256
from model_store.errors import PublishRefused
from tests.tiny_backbone import write_tiny_backbone
from training.backbone.batches import collate
from training.backbone.pixels import normalize, patchify
from training.backbone.rendering import render_sample
from training.backbone.sampling import PATCH, PATCH_COLUMNS, PATCH_ROWS, PATCHES_PER_FRAME
from training.experts.forward import AdaptedForward
from training.experts.publishing import publish_experts
from training.experts.recipe import ExpertRecipe
from training.experts.run import UnfitBackbone, make_experts
from training.experts.trainer import ExpertTrainer

RECIPE = replace(
    ExpertRecipe("traffic"),
    clips=48,
    tokens_per_step=1500,
    calibration_clips=8,
    validation_clips=2,
    prototype_clips=4,
    evaluate_every_clips=1000,
    warmup_steps=1,
    threads=1,
    renderers=0,
)


@pytest.fixture
def backbone():
    return load_backbone("visum-demo", device="cpu")


def _noisy_experts(model, recipe: ExpertRecipe):
    """Experts whose B is no longer zero, so that they matter."""
    handle = inject(model, recipe.milora(), seed=3)
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
    handle = _noisy_experts(model, RECIPE)
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


def test_training_changes_the_experts_and_not_one_byte_of_the_backbone(backbone, tmp_path) -> None:
    trainer = ExpertTrainer(backbone, RECIPE, tmp_path / "log.csv")
    before = weights_sha256(backbone.model)
    fresh = trainer.handle.export_state()
    trained = trainer.run(lambda clips, total, loss: None)
    assert weights_sha256(backbone.model) == before
    assert not any(p.requires_grad or p.grad is not None for p in backbone.model.parameters())
    changed = [
        name for name, layer in trained.state.layers.items() if not torch.equal(layer.B, fresh.layers[name].B)
    ]
    assert changed == list(trained.state.layers)
    assert trained.state.a != fresh.a
    assert trained.clips >= RECIPE.clips


def test_the_loss_falls_within_a_few_steps(backbone, tmp_path) -> None:
    trainer = ExpertTrainer(backbone, replace(RECIPE, clips=240), tmp_path / "log.csv")
    losses: list[float] = []
    trainer.run(lambda clips, total, loss: losses.append(loss))
    assert sum(losses[-3:]) / 3 < 0.8 * losses[0]


def test_a_published_adapter_loads_and_carries_what_was_trained(backbone, tmp_path) -> None:
    entry = make_experts(RECIPE, "visum-demo", tmp_path / "adapters", tmp_path / "logs")
    loaded = load_adapter(
        entry, backbone_fingerprint=backbone.fingerprint, module_shapes=backbone.module_shapes
    )
    manifest = loaded.manifest
    groups = {
        name: GroupConfig(tuple(g.targets), g.experts, g.rank, g.lora_alpha, temperature=g.temperature)
        for name, g in manifest.groups.items()
    }
    state = from_peft(loaded.config, loaded.tensors, loaded.gates, groups)
    assert manifest.trainable_parameters == state.parameters()
    assert manifest.training["clips"] >= RECIPE.clips
    assert set(loaded.prototype) == {"mean", "covariance"}
    assert (entry.path / "README.md").read_text().startswith("# traffic")


def test_an_adapter_of_another_backbone_is_not_published(backbone, tmp_path) -> None:
    trainer = ExpertTrainer(backbone, RECIPE, tmp_path / "log.csv")
    trained = trainer.run(lambda clips, total, loss: None)
    wide = {"mean": torch.zeros(128), "covariance": torch.eye(128)}
    shapes = {**backbone.module_shapes, "model.language_model.layers.0.self_attn.q_proj": (256, 512)}
    other = _WithShapes(backbone, shapes)
    with pytest.raises(PublishRefused, match="q_proj"):
        publish_experts(tmp_path / "adapters", other, RECIPE, trained, wide)
    assert not list((tmp_path / "adapters").glob("traffic/[0-9]*"))


def test_a_backbone_that_looks_at_frames_otherwise_is_refused_by_name(tmp_path) -> None:
    write_tiny_backbone(tmp_path / "tiny")
    with pytest.raises(UnfitBackbone, match="cannot be trained on the demo world"):
        make_experts(RECIPE, str(tmp_path / "tiny"), tmp_path / "adapters", tmp_path / "logs")


class _WithShapes:
    """A backbone that says its modules have other shapes."""

    def __init__(self, backbone, shapes) -> None:
        self.name, self.fingerprint, self.module_shapes = backbone.name, backbone.fingerprint, shapes
