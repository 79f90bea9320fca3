"""The second architecture of demo size: its fast pass against the model, what its dense heads name, its folder."""

import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from milora import architecture, inject
from model_store.errors import BackboneRefused
from training.backbone.batches import collate
from training.backbone.decoding import greedy
from training.backbone.dense_labels import label_frames
from training.backbone.dense_pretrain import DenseHeads, dense_loss
from training.backbone.design import VIDEOLLAMA2
from training.backbone.export import export_backbone
from training.backbone.loading import load_trained
from training.backbone.muon import MuonAdamW
from training.backbone.pixels import normalize
from training.backbone.recipe import Recipe
from training.backbone.rendering import render_sample
from training.backbone.tokenizer import DEFAULT_PROMPT, TURN_END, VIDEO_PAD, learn_tokenizer
from training.experiments.baselines import PeftLora, mixture_parameters
from training.experts.recipe import world_config
from training.trainer.fast import FastPass
from training.trainer.method import Milora
from training.trainer.passes import Pair
from training.world import KINDS, MOTIONS, Box

RECIPE = Recipe(renderers=0, compiled=False)
CONFIG = world_config(None, **{"temporal.rank": 2, "spatial.rank": 2})


@pytest.fixture(scope="module")
def samples():
    """Of one length, which is odd."""
    drawn = (render_sample("general", seed, "train", labelled=True) for seed in range(40))
    return [sample for sample in drawn if len(sample.times_s) == 7][:2]


@pytest.fixture(scope="module")
def tokenizer(samples):
    return learn_tokenizer(
        [sample.summary for sample in samples] * 20, RECIPE.instructions, RECIPE.vocabulary
    )


@pytest.fixture
def model(tokenizer):
    torch.set_num_threads(1)
    torch.manual_seed(1)
    model = VIDEOLLAMA2.build(tokenizer, RECIPE.vocabulary).eval()
    # Larger weights than the initial ones, so that attention is far from uniform and a mistake shows.
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.03)
    return model


@pytest.fixture
def forward(model):
    return VIDEOLLAMA2.forward(model)


@pytest.fixture
def batch(samples, tokenizer):
    return collate(samples, tokenizer, DEFAULT_PROMPT, VIDEOLLAMA2)


def stock_inputs(forward, batch, ids):
    pictures = forward.pictures(normalize(batch.frames))
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "pixel_values_videos": pictures}


def test_two_frames_are_sixteen_tokens_of_the_prompt(batch, tokenizer):
    assert (batch.prompt == tokenizer.convert_tokens_to_ids(VIDEO_PAD)).sum(1).tolist() == [64, 64]


def test_the_last_frame_of_an_odd_number_is_shown_twice_with_its_labels(batch, samples):
    assert batch.frames.shape[1] == 8
    assert torch.equal(batch.frames[:, 7], torch.stack([torch.from_numpy(s.frames[6]) for s in samples]))
    kinds = batch.labels["token_kind"].view(2, 8, 12)
    assert torch.equal(kinds[:, 7], kinds[:, 6])


def test_the_fast_pass_gives_the_logits_of_the_model(model, forward, batch):
    pictures = forward.pictures(normalize(batch.frames))
    ids = torch.cat([batch.prompt, batch.answer[:, :-1]], 1)
    with torch.no_grad():
        fast = forward.answer_logits(pictures, batch.prompt, batch.answer)
        stock = model(**stock_inputs(forward, batch, ids)).logits[:, -batch.answer.shape[1] :]
    assert stock.std() > 0.1
    torch.testing.assert_close(fast, stock, atol=1e-4, rtol=1e-4)


def test_greedy_decoding_gives_the_tokens_of_generate(model, forward, batch, tokenizer):
    end = tokenizer.convert_tokens_to_ids(TURN_END)
    pictures = forward.pictures(normalize(batch.frames))
    ours = greedy(forward, pictures, batch.prompt, end=end, limit=8)
    stock = model.generate(**stock_inputs(forward, batch, batch.prompt), max_new_tokens=8, do_sample=False)
    told = stock[:, batch.prompt.shape[1] :].tolist()
    assert ours == [[token for token in row if token != end] for row in told]


def test_the_model_tells_two_orders_of_the_same_frames_apart(forward, batch):
    frames = normalize(batch.frames)
    with torch.no_grad():
        there = forward.video(forward.pictures(frames))
        back = forward.video(forward.pictures(frames.flip(1)))
    assert (there.mean(1) - back.mean(1)).abs().max() > 1e-3


def test_dense_heads_read_the_pictures_patches_in_block_order_and_its_own_tokens(forward, batch):
    pictures = forward.pictures(normalize(batch.frames))
    with torch.no_grad():
        patches, tokens = forward.cells(pictures)
        features, video = forward.patch_features(pictures), forward.video(pictures)
    assert patches.shape == (16, 48, 128)
    assert tokens.shape == (8, 12, 256)
    assert torch.equal(
        patches[:, 4], features[:, 2]
    )  # the third patch of the first row opens the second block
    assert torch.equal(tokens[5], video[1, 16:28])


def test_a_token_is_asked_about_both_of_its_frames():
    torch.manual_seed(3)
    box = Box(next(iter(KINDS)), "red", MOTIONS[0], True, 0.0, 0.0, 0.3, 0.3)
    labels = {name: torch.from_numpy(value) for name, value in vars(label_frames([[box], []])).items()}
    heads = DenseHeads(128, 256, frames_a_token=2)
    features, tokens = torch.randn(2, 48, 128), torch.randn(1, 12, 256)
    loss = heads.loss(features, tokens, labels)
    with torch.no_grad():  # the other frame first, in labels, patches and heads alike
        for parameter in heads.token.parameters():
            parameter.copy_(parameter.unflatten(0, (2, -1)).flip(0).flatten(0, 1))
    turned = {name: value.flip(0) for name, value in labels.items()}
    torch.testing.assert_close(heads.loss(features.flip(0), tokens, turned), loss)
    assert not torch.isclose(heads.loss(features, tokens, labels), loss)


def test_dense_pretraining_reaches_tower_and_connector_but_not_the_language_model(model, forward, batch):
    pictures = forward.pictures(normalize(batch.frames))
    dense_loss(forward, DenseHeads(128, 256, 2), pictures, batch.labels).backward()
    assert model.vision_tower.embeddings.patch_embedding.weight.grad is not None
    assert model.connector.sampler[0].weight.grad.any()
    assert all(parameter.grad is None for parameter in model.language_model.parameters())


def test_the_optimizer_steps_a_convolution_as_the_matrix_that_it_is():
    torch.manual_seed(0)
    convolution, linear = nn.Conv3d(4, 8, 2, bias=False), nn.Linear(32, 8, bias=False)
    linear.weight.data.copy_(convolution.weight.flatten(1))
    gradient = torch.randn(8, 32)
    for layer in (convolution, linear):
        optimizer = MuonAdamW({"weight": (layer.weight, 1.0)}, {"weight"}, weight_decay=0.1)
        layer.weight.grad = gradient.view_as(layer.weight)
        optimizer.step(0.1, 0.1)
    assert torch.equal(convolution.weight.flatten(1), linear.weight)


@pytest.mark.parametrize("kind", ["milora", "lora"])
def test_the_fast_pass_gives_the_models_loss_and_gradients_with_experts(model, samples, tokenizer, kind):
    method = Milora(model, CONFIG) if kind == "milora" else PeftLora(model, CONFIG, kind)
    torch.manual_seed(5)
    with torch.no_grad():
        for parameter in method.module.parameters():
            if parameter.requires_grad and not parameter.any():
                parameter.normal_(0, 0.03)
    fast = FastPass(model, tokenizer)
    batch = fast.read([Pair(s.frames, s.times_s, DEFAULT_PROMPT, s.summary) for s in samples])
    ids = torch.cat([batch.prompt, batch.answer], 1)
    told = torch.arange(batch.answer.shape[1]) < batch.lengths[:, None]
    labels = torch.cat([torch.full_like(batch.prompt, -100), batch.answer.masked_fill(~told, -100)], 1)
    found = []
    for stock in (False, True):
        rows = fast.rows(batch)
        if stock:  # the model reads the answers' last token too
            rows["prompt_mask"] = nn.functional.pad(rows["prompt_mask"], (0, 1))
        with method.training(rows):
            inputs = stock_inputs(fast.forward, batch, ids)
            loss = model(**inputs, labels=labels).loss if stock else fast.loss(batch, None)
            loss.backward()
        found.append([p.grad.clone() for p in method.module.parameters() if p.grad is not None] + [loss])
        method.module.zero_grad()
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-3)


def test_the_lora_is_as_large_as_the_mixture_and_knows_which_convolution_is_of_which_group(model):
    config = world_config()
    wanted = mixture_parameters(model, config)
    handle = inject(model, config.milora(architecture(model)))
    assert sum(p.numel() for kind in handle.trainable_parameters().values() for p in kind) == wanted
    handle.remove()
    method = PeftLora(model, config, "lora")
    trained = sum(parameter.numel() for parameter in method.module.parameters())
    assert abs(trained - wanted) / wanted < 0.02
    assert "connector.sampler.0" not in method.spatial
    assert "connector.s1.b1.conv1.conv" in method.spatial


def test_an_exported_folder_gives_the_model_back_and_altered_weights_are_refused(
    model, tokenizer, samples, tmp_path
):
    folder = tmp_path / VIDEOLLAMA2.name
    export_backbone(model, tokenizer, RECIPE, samples, {"clips_seen": 2}, {"exact_match": 0.5}, folder)
    loaded = load_trained(folder)
    assert all(
        torch.equal(tensor, loaded.model.state_dict()[name]) for name, tensor in model.state_dict().items()
    )
    assert loaded.model.language_model.lm_head.weight is loaded.model.language_model.model.embed_tokens.weight
    assert loaded.tokenizer.get_vocab() == tokenizer.get_vocab()
    assert loaded.manifest.name == VIDEOLLAMA2.name
    assert "`videollama2`" in (folder / "README.md").read_text()
    altered = shutil.copytree(folder, tmp_path / "altered")
    tensors = load_file(altered / "model.safetensors")
    tensors["connector.sampler.0.bias"] += 1
    save_file(tensors, altered / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(BackboneRefused, match="another fingerprint"):
        load_trained(altered)
