"""The fast training path against the stock processor and the stock model that serve the result."""

from pathlib import Path

import pytest
import torch
from transformers import AutoProcessor, VideoLlama3ForConditionalGeneration
from transformers.video_utils import VideoMetadata

from model_store.backbone import load_backbone
from training.backbone.architecture import build_config, build_model, build_processor
from training.backbone.batches import collate
from training.backbone.decoding import greedy
from training.backbone.export import export_backbone
from training.backbone.forward import FastForward
from training.backbone.pixels import normalize, patchify
from training.backbone.recipe import Recipe
from training.backbone.rendering import render_sample
from training.backbone.sampling import TOKENS_PER_FRAME, sample_times
from training.backbone.tokenizer import DEFAULT_PROMPT, TURN_END, learn_tokenizer, prompt_text

RECIPE = Recipe(renderers=0, compiled=False)


@pytest.fixture(scope="module")
def sample():
    return render_sample("general", 3, "train")


@pytest.fixture(scope="module")
def tokenizer(sample):
    return learn_tokenizer([sample.summary] * 20, RECIPE.instructions, RECIPE.vocabulary)


@pytest.fixture(scope="module")
def model(tokenizer):
    torch.set_num_threads(1)
    torch.manual_seed(1)
    model = build_model(build_config(tokenizer, RECIPE.vocabulary)).eval()
    # Larger weights than the initial ones, so that attention is far from uniform and a mistake shows.
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.03)
    return model


def stock_inputs(processor, sample, instruction=DEFAULT_PROMPT):
    content = [{"type": "video"}, {"type": "text", "text": instruction}]
    text = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    indices = [round(time * 24) for time in sample.times_s]
    metadata = VideoMetadata(total_num_frames=1000, fps=24.0, frames_indices=indices)
    return processor(text=[text], videos=[sample.frames], video_metadata=[metadata], return_tensors="pt")


def test_the_fast_path_gives_the_logits_of_the_stock_model(model, tokenizer, sample):
    batch = collate([sample, sample], tokenizer, DEFAULT_PROMPT)
    with torch.no_grad():
        fast = FastForward(model).answer_logits(patchify(normalize(batch.frames)), batch.prompt, batch.answer)
    inputs = stock_inputs(build_processor(tokenizer), sample)
    prompt = inputs["input_ids"].shape[1]
    inputs["input_ids"] = torch.cat([inputs["input_ids"], batch.answer[:1, :-1]], dim=1)
    inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
    with torch.no_grad():
        stock = model(**inputs).logits[:, prompt - 1 :]
    assert stock.std() > 0.1
    torch.testing.assert_close(fast[1:], stock, atol=1e-4, rtol=1e-4)


def test_training_prompts_are_those_of_chat_template_and_stock_processor(tokenizer, sample):
    ours = collate([sample], tokenizer, DEFAULT_PROMPT).prompt
    assert torch.equal(ours, stock_inputs(build_processor(tokenizer), sample)["input_ids"])


def test_patches_are_those_of_the_stock_video_processor(tokenizer, sample):
    ours = patchify(normalize(torch.from_numpy(sample.frames))).flatten(0, 1)
    stock = stock_inputs(build_processor(tokenizer), sample)["pixel_values_videos"]
    torch.testing.assert_close(ours, stock, atol=1e-5, rtol=1e-5)


def test_batched_greedy_decoding_gives_the_tokens_of_generate(model, tokenizer, sample):
    batch = collate([sample, sample], tokenizer, DEFAULT_PROMPT)
    end = tokenizer.convert_tokens_to_ids(TURN_END)
    ours = greedy(FastForward(model), patchify(normalize(batch.frames)), batch.prompt, end=end, limit=12)
    inputs = stock_inputs(build_processor(tokenizer), sample)
    stock = model.generate(**inputs, max_new_tokens=12, do_sample=False)[0, inputs["input_ids"].shape[1] :]
    assert ours[1] == [token for token in stock.tolist() if token != end]


@pytest.mark.parametrize("duration", [3.0, 6.0, 7.49, 9.4, 11.96, 12.0, 40.0])
def test_frames_are_sampled_at_the_moments_of_the_stock_video_processor(tokenizer, duration):
    processor = build_processor(tokenizer).video_processor
    metadata = VideoMetadata(total_num_frames=round(duration * 24), fps=24.0)
    stock = [index / 24 for index in processor.sample_frames(metadata, fps=1).tolist()]
    assert sample_times(duration) == stock


@pytest.fixture(scope="module")
def exported(model, tokenizer, sample, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("export") / "visum-demo"
    clips = [sample, render_sample("general", 4, "train")]
    export_backbone(model, tokenizer, RECIPE, clips, {"clips_seen": 2}, {"exact_match": 0.5}, folder)
    return folder


def test_the_exported_folder_loads_with_the_stock_classes(model, tokenizer, sample, exported):
    processor = AutoProcessor.from_pretrained(exported)
    loaded = VideoLlama3ForConditionalGeneration.from_pretrained(exported, dtype=torch.float32)
    expected = stock_inputs(build_processor(tokenizer), sample)
    inputs = stock_inputs(processor, sample)
    assert torch.equal(inputs["input_ids"], expected["input_ids"])
    assert torch.equal(inputs["pixel_values_videos"], expected["pixel_values_videos"])
    assert processor.tokenizer.decode(processor.tokenizer(sample.summary).input_ids) == sample.summary
    with torch.no_grad():
        torch.testing.assert_close(loaded(**inputs).logits, model(**expected).logits)


def test_the_exported_folder_is_a_backbone_of_the_model_store(exported):
    backbone = load_backbone(exported)
    assert backbone.manifest.frame_pixels == 64 * 48
    assert backbone.manifest.fingerprint == backbone.fingerprint
    assert backbone.manifest.quality == {"exact_match": 0.5}
    assert "pictograms" in backbone.manifest.notice
    assert {name: tuple(t.shape) for name, t in backbone.prototype.items()} == {
        "mean": (128,),
        "covariance": (128, 128),
    }


def test_the_model_card_tells_what_the_model_is_and_what_was_measured(exported):
    card = (exported / "README.md").read_text()
    assert "small model of a synthetic world" in card
    assert "| exact match | 0.5 |" in card


def test_prompts_of_one_frame_count_have_one_length(tokenizer):
    texts = [prompt_text(sample_times(9 + tenth / 10), TOKENS_PER_FRAME) for tenth in range(10)]
    lengths = {len(ids) for ids in tokenizer(texts, add_special_tokens=False).input_ids}
    assert lengths == {9 * (TOKENS_PER_FRAME + 3) + 15} or len(lengths) == 1
