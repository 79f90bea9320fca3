from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import VideoLlama3ForConditionalGeneration, VideoLlama3Processor
from transformers.video_utils import VideoMetadata

from model_store.backbone import load_backbone
from model_store.checkpoint import checkpoint_fingerprint, checkpoint_tensors
from model_store.convert import import_original
from model_store.errors import BackboneRefused, ConversionRefused
from tests.model_store.original_checkpoint import original_config, original_state, write_original
from tests.tiny_backbone import tiny_model, tiny_processor

NEAR = "model.mm_projector.readout.0.weight"


@pytest.fixture
def original(tmp_path: Path) -> Path:
    return write_original(tmp_path / "original", original_state())


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "store" / "backbones" / "videollama3"


def video_inputs(processor: VideoLlama3Processor) -> dict[str, torch.Tensor]:
    """Three noisy frames and a question, through the stock processor."""
    frames = torch.randint(
        0, 256, (3, 3, 32, 48), dtype=torch.uint8, generator=torch.Generator().manual_seed(7)
    )
    content = [{"type": "video"}, {"type": "text", "text": "What happens?"}]
    text = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    metadata = VideoMetadata(total_num_frames=3, fps=1.0, frames_indices=[0, 1, 2])
    inputs = processor(text=[text], videos=[frames], video_metadata=[metadata], return_tensors="pt")
    return dict(inputs)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("shards", [1, 3])
def test_an_imported_checkpoint_gives_the_original_logits_bit_for_bit(
    tmp_path: Path, target: Path, tied: bool, shards: int
) -> None:
    state = original_state(tied=tied)
    import_original(write_original(tmp_path / "original", state, tied=tied, shards=shards), target)
    stock = VideoLlama3ForConditionalGeneration.from_pretrained(target).eval()
    inputs = video_inputs(tiny_processor())
    with torch.no_grad():
        expected = tiny_model(tied=tied)(**inputs).logits
        assert torch.equal(stock(**inputs).logits, expected)
        assert torch.equal(load_backbone(target, device="cpu").model(**inputs).logits, expected)


def test_bf16_tensors_keep_their_bytes(tmp_path: Path, target: Path) -> None:
    state = {name: tensor.bfloat16() for name, tensor in original_state().items()}
    import_original(write_original(tmp_path / "original", state), target)
    imported = load_file(target / "model.safetensors")
    assert torch.equal(imported["model.projector.readout.0.weight"], state[NEAR])


def test_the_shards_of_the_source_are_kept(tmp_path: Path, target: Path) -> None:
    import_original(write_original(tmp_path / "original", original_state(), shards=3), target)
    assert sorted(path.name for path in target.glob("*.safetensors")) == [
        f"model-0000{number}-of-00003.safetensors" for number in (1, 2, 3)
    ]


def test_a_nested_tower_as_the_authors_own_script_writes_it_is_understood(
    tmp_path: Path, target: Path
) -> None:
    nested = {
        name.replace("model.vision_encoder.", "model.vision_encoder.vision_encoder."): tensor
        for name, tensor in original_state().items()
    }
    manifest = import_original(write_original(tmp_path / "original", nested), target)
    plain = import_original(write_original(tmp_path / "plain", original_state()), tmp_path / "other")
    assert manifest.fingerprint == plain.fingerprint


def test_the_prompt_reads_as_the_original_template_writes_it(original: Path, target: Path) -> None:
    import_original(original, target)
    processor = load_backbone(target).processor
    shown = processor.tokenizer.decode(video_inputs(processor)["input_ids"][0])
    frame = "<|video_pad|>" * (4 * 6)
    assert shown == (
        "<|im_start|>system\nYou are VideoLLaMA3 created by Alibaba DAMO Academy, a helpful assistant to "
        "help people understand images and videos.<|im_end|>\n"
        f"<|im_start|>user\nTime 0.0s:{frame},Time 1.0s:{frame},Time 2.0s:{frame}\nWhat happens?<|im_end|>\n"
        "<|im_start|>assistant\n"
    )


def test_a_system_message_of_the_caller_takes_the_place_of_the_default(original: Path, target: Path) -> None:
    import_original(original, target)
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"}]
    shown = VideoLlama3Processor.from_pretrained(target).apply_chat_template(messages)
    assert shown == "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHello<|im_end|>\n"


def test_pixels_are_bounded_and_merged_as_the_original_does(original: Path, target: Path) -> None:
    import_original(original, target)
    processor = VideoLlama3Processor.from_pretrained(target)
    video, image = processor.video_processor, processor.image_processor
    assert (video.merge_size, video.size["shortest_edge"], video.size["longest_edge"]) == (2, 64, 4096 * 64)
    assert (image.merge_size, image.size["shortest_edge"], image.size["longest_edge"]) == (1, 16, 4096 * 16)
    assert not video.use_token_compression
    assert list(video.image_mean) == [0.5, 0.5, 0.5]


def test_generation_settings_are_carried_over(original: Path, target: Path) -> None:
    import_original(original, target)
    generation = load_backbone(target).model.generation_config
    assert (generation.temperature, generation.top_p, generation.eos_token_id) == (0.7, 0.9, 258)


def test_the_manifest_names_the_result_by_its_fingerprint(original: Path, target: Path) -> None:
    manifest = import_original(original, target)
    assert (manifest.name, manifest.max_frames) == ("videollama3", 128)
    assert manifest.fingerprint == checkpoint_fingerprint(target) == load_backbone(target).fingerprint


def test_nothing_of_the_remote_code_is_taken_over(original: Path, target: Path) -> None:
    (original / "modeling_videollama3.py").write_text("raise SystemExit('remote code ran')\n")
    import_original(original, target)
    assert not list(target.glob("*.py"))
    assert all("auto_map" not in path.read_text() for path in target.glob("*.json"))


def test_a_tied_head_that_is_stored_as_well_is_dropped(tmp_path: Path, target: Path) -> None:
    state = original_state()
    state["lm_head.weight"] = state["model.embed_tokens.weight"].clone()
    import_original(write_original(tmp_path / "original", state), target)
    assert "lm_head.weight" not in checkpoint_tensors(target)


def test_a_tied_head_that_differs_from_the_embedding_is_refused(tmp_path: Path, target: Path) -> None:
    state = original_state()
    state["lm_head.weight"] = state["model.embed_tokens.weight"] + 1
    with pytest.raises(ConversionRefused, match=r"ties lm_head.weight to the embedding, but they differ"):
        import_original(write_original(tmp_path / "original", state), target)


def test_unknown_and_missing_tensors_are_listed(tmp_path: Path, target: Path) -> None:
    state = original_state()
    del state[NEAR], state["model.layers.1.mlp.up_proj.weight"]
    state["model.audio_encoder.conv1.weight"] = torch.zeros(2)
    state["model.layers.7.mlp.up_proj.weight"] = torch.zeros(2)
    with pytest.raises(ConversionRefused) as refused:
        import_original(write_original(tmp_path / "original", state), target)
    assert refused.value.unknown == ("model.audio_encoder.conv1.weight", "model.layers.7.mlp.up_proj.weight")
    assert refused.value.missing == (
        "model.language_model.layers.1.mlp.up_proj.weight",
        "model.projector.readout.0.weight",
    )
    assert "unknown (2): model.audio_encoder.conv1.weight" in str(refused.value)
    assert "missing (2): model.language_model" in str(refused.value)


def test_a_tensor_of_another_shape_is_listed(tmp_path: Path, target: Path) -> None:
    state = original_state() | {NEAR: torch.zeros(3, 5)}
    with pytest.raises(
        ConversionRefused, match=r"wrong shape \(1\): .*readout.0.weight \(3, 5\) for \(32, 32\)"
    ):
        import_original(write_original(tmp_path / "original", state), target)


def test_a_refused_import_leaves_nothing_behind(tmp_path: Path, target: Path) -> None:
    state = original_state()
    del state[NEAR]
    with pytest.raises(ConversionRefused):
        import_original(write_original(tmp_path / "original", state), target)
    assert not target.exists()


def test_a_failure_after_the_weights_were_written_leaves_nothing_behind(original: Path, target: Path) -> None:
    (original / "tokenizer.json").write_text('{"added_tokens": [], "version": "1.0"}')
    (original / "added_tokens.json").write_text('{"<|image_pad|>": 259, "<|video_pad|>": 260}')
    with pytest.raises(ConversionRefused, match="the stock processor cannot be made"):
        import_original(original, target)
    assert list(target.parent.iterdir()) == []


def test_an_existing_target_is_never_overwritten(original: Path, target: Path) -> None:
    target.mkdir(parents=True)
    with pytest.raises(ConversionRefused, match="exists already"):
        import_original(original, target)


def test_pickled_weights_are_refused_with_the_reason(original: Path, target: Path) -> None:
    (original / "model.safetensors").unlink()
    (original / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    with pytest.raises(ConversionRefused, match=r"pickled weights \(pytorch_model.bin\).*runs whatever code"):
        import_original(original, target)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"model_type": "qwen2"}, "model_type is 'qwen2', not 'videollama3_qwen2'"),
        ({"model_type": "video_llama_3"}, "in the native layout already"),
        ({"mm_projector_type": "linear"}, "mm_projector_type is 'linear'"),
        ({"vision_encoder_config": None}, "has no vision_encoder_config"),
        ({"num_attention_heads": "four"}, "transformers does not accept the configuration"),
    ],
)
def test_another_kind_of_model_is_refused(
    original: Path, target: Path, change: dict[str, object], reason: str
) -> None:
    (original / "config.json").write_text(json.dumps(original_config() | change))
    with pytest.raises(ConversionRefused, match=reason):
        import_original(original, target)


def test_a_tokenizer_without_the_visual_tokens_is_refused(original: Path, target: Path) -> None:
    tokenizer = json.loads((original / "tokenizer.json").read_text())
    tokenizer["added_tokens"] = [
        token for token in tokenizer["added_tokens"] if "pad" not in token["content"]
    ]
    (original / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(ConversionRefused, match=r"no <\|image_pad\|> and no <\|video_pad\|>"):
        import_original(original, target)


def test_an_index_that_points_out_of_the_folder_is_refused(tmp_path: Path, target: Path) -> None:
    original = write_original(tmp_path / "original", original_state(), shards=2)
    save_file({"x": torch.zeros(1)}, tmp_path / "outside.safetensors")
    index = json.loads((original / "model.safetensors.index.json").read_text())
    index["weight_map"]["x"] = "../outside.safetensors"
    (original / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ConversionRefused, match="not a safetensors file of the folder"):
        import_original(original, target)


def test_progress_ends_with_every_byte_written(original: Path, target: Path) -> None:
    seen: list[tuple[int, int]] = []
    import_original(original, target, progress=lambda done, total: seen.append((done, total)))
    assert (
        seen[-1][0] == seen[-1][1] == sum(tensor.span.size for tensor in checkpoint_tensors(target).values())
    )


def test_an_original_checkpoint_that_was_not_imported_is_refused_with_what_to_do(original: Path) -> None:
    with pytest.raises(BackboneRefused, match="convert it with `visum backbones import`"):
        load_backbone(original)
