"""The original Video-LLaMA: its forward, and its released weights under our names."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import (
    Blip2Config,
    Blip2Model,
    InstructBlipVideoQFormerConfig,
    InstructBlipVideoQFormerModel,
    OPTConfig,
)

from milora import StateMismatch
from milora.architectures.modeling_video_llama import VideoLlamaConfig, VideoLlamaForConditionalGeneration
from milora.architectures.original_video_llama import QFORMER_PARTS, TOWER_PARTS, load_original
from tests.milora import original_video_llama as original
from tests.milora.tiny_architectures import QFORMER, TINY, VIDEO_TOKEN, VISION, video_llama_config

TINY_VIDEO_LLAMA = next(tiny for tiny in TINY if tiny.model_type == "video_llama")
FROZEN = ("visual_encoder.", "ln_vision.", "Qformer.", "query_tokens")
HEADS = 2


def videos() -> Tensor:
    """(V, T, 3, H, W)."""
    return torch.randn(2, 3, 3, 16, 16, generator=torch.Generator().manual_seed(7))


def save_released(folder: Path, weights: dict[str, Tensor]) -> tuple[Path, Path, Path]:
    """The three files as they are out there, with what else is in them."""
    trained = {name: tensor for name, tensor in weights.items() if not name.startswith(FROZEN)}
    buffers = {
        "Qformer.bert.embeddings.position_ids": torch.arange(8)[None],
        "video_Qformer.bert.embeddings.position_ids": torch.arange(8)[None],
        "llama_model.model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4),
    }
    state = {
        "model": trained | buffers,
        "optimizer": {"state": {}},
        "config": {"run": {"seed": 42}},
        "scaler": None,
    }
    torch.save(state | {"epoch": 2}, folder / "video_llama.pth")
    blip2 = {name: tensor for name, tensor in weights.items() if name.startswith(FROZEN[1:])}
    text_half = {
        "Qformer.cls.predictions.bias": torch.ones(5),
        "Qformer.bert.embeddings.word_embeddings.weight": torch.ones(5, 24),
        "Qformer.bert.encoder.layer.0.intermediate.dense.weight": torch.ones(32, 24),
        "Qformer.bert.encoder.layer.0.output.dense.weight": torch.ones(24, 32),
        "t5_proj.weight": torch.ones(4, 24),
    }
    torch.save({"model": blip2 | text_half}, folder / "blip2.pth")
    tower = {
        name.removeprefix("visual_encoder."): tensor
        for name, tensor in weights.items()
        if name.startswith("visual_encoder.")
    }
    torch.save(tower, folder / "eva.pth")
    return folder / "video_llama.pth", folder / "blip2.pth", folder / "eva.pth"


@pytest.fixture
def weights() -> dict[str, Tensor]:
    return original.random_weights()


@pytest.fixture
def loaded(weights: dict[str, Tensor], tmp_path: Path) -> VideoLlamaForConditionalGeneration:
    """The tiny model with all three files in it."""
    model = TINY_VIDEO_LLAMA.model()
    trained, blip2, eva = save_released(tmp_path, weights)
    load_original(model, trained)
    load_original(model, blip2, QFORMER_PARTS)
    load_original(model, eva, TOWER_PARTS)
    return model


def test_the_videos_tokens_equal_an_independent_reading_of_the_architecture(
    loaded: VideoLlamaForConditionalGeneration, weights: dict[str, Tensor]
) -> None:
    pixels = videos()
    with torch.no_grad():
        found = loaded.video_tokens(pixels)
        expected = original.video_tokens(weights, pixels.transpose(1, 2), HEADS)
    assert found.shape == (2, 6, 32)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_the_videos_tokens_stand_where_the_released_code_puts_them(
    loaded: VideoLlamaForConditionalGeneration,
) -> None:
    """Between the words before and the words behind, as one run of embeddings into LLaMA."""
    before, behind = torch.tensor([[5, 6], [7, 8]]), torch.tensor([[9, 10, 11], [12, 13, 14]])
    ids = torch.cat([before, torch.full((2, 6), VIDEO_TOKEN), behind], 1)
    embed = loaded.get_input_embeddings()
    with torch.no_grad():
        tokens = loaded.video_tokens(videos())
        by_hand = torch.cat([embed(before), tokens, embed(behind)], 1)
        expected = loaded.language_model(inputs_embeds=by_hand).logits
        found = loaded(input_ids=ids, pixel_values_videos=videos()).logits
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


def test_frame_tokens_equal_those_of_transformers_blip_2() -> None:
    model = TINY_VIDEO_LLAMA.model()
    text = OPTConfig(
        vocab_size=64,
        hidden_size=32,
        ffn_dim=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        word_embed_proj_dim=32,
    )
    config = Blip2Config(
        vision_config=VISION, qformer_config=QFORMER, text_config=text.to_dict(), num_query_tokens=4
    )
    reference = Blip2Model(config).eval()
    frozen = {
        name: tensor
        for name, tensor in model.state_dict().items()
        if name.startswith(("vision_model.", "qformer.", "query_tokens"))
    }
    assert reference.load_state_dict(frozen, strict=False).unexpected_keys == []
    reference.vision_model.post_layernorm.eps = (
        1e-5  # LAVIS's ln_vision; transformers gives it the tower's 1e-6
    )
    frames = videos().flatten(0, 1)
    with torch.no_grad():
        expected = reference.get_qformer_features(frames)
        found = model.frame_tokens(frames)
    torch.testing.assert_close(found, getattr(expected, "last_hidden_state", expected), rtol=0, atol=1e-6)


def test_the_video_q_former_equals_that_of_transformers_instructblip() -> None:
    model = TINY_VIDEO_LLAMA.model()
    config = InstructBlipVideoQFormerConfig(
        **QFORMER, vocab_size=8, cross_attention_frequency=1, encoder_hidden_size=24, layer_norm_eps=1e-12
    )
    reference = InstructBlipVideoQFormerModel(config).eval()
    renamed = {
        name.replace("layernorm.", "embeddings.layernorm.", 1)
        if name.startswith("layernorm.")
        else name: tensor
        for name, tensor in model.video_qformer.state_dict().items()
    }
    assert reference.load_state_dict(renamed, strict=False).unexpected_keys == []
    seen = torch.randn(2, 12, 24, generator=torch.Generator().manual_seed(3))
    queries = model.video_query_tokens.expand(2, -1, -1)
    with torch.no_grad():
        expected = reference(
            input_ids=None, query_embeds=queries, encoder_hidden_states=seen
        ).last_hidden_state
        found = model.video_qformer(query_embeds=queries, encoder_hidden_states=seen).last_hidden_state
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


def test_the_order_of_frames_matters(loaded: VideoLlamaForConditionalGeneration) -> None:
    with torch.no_grad():
        forward, backward = loaded.video_tokens(videos()), loaded.video_tokens(videos().flip(1))
    assert (forward - backward).abs().max() > 1e-3


def test_the_released_sizes_are_the_defaults() -> None:
    config = VideoLlamaConfig()
    vision, qformer, video = config.vision_config, config.qformer_config, config.video_qformer_config
    assert (vision.hidden_size, vision.num_hidden_layers, vision.patch_size, vision.image_size) == (
        1408,
        39,
        14,
        224,
    )
    assert (qformer.num_hidden_layers, qformer.cross_attention_frequency, qformer.encoder_hidden_size) == (
        12,
        2,
        1408,
    )
    assert (video.num_hidden_layers, video.cross_attention_frequency, video.encoder_hidden_size) == (
        2,
        1,
        768,
    )
    assert (config.num_query_tokens, config.num_video_query_tokens, config.max_frames) == (32, 32, 32)
    assert config.text_config.hidden_size == 4096


def test_every_parameter_but_llamas_comes_from_the_three_files(
    weights: dict[str, Tensor], tmp_path: Path
) -> None:
    model = TINY_VIDEO_LLAMA.model()
    trained, blip2, eva = save_released(tmp_path, weights)
    reports = [
        load_original(model, trained),
        load_original(model, blip2, QFORMER_PARTS),
        load_original(model, eva, TOWER_PARTS),
    ]
    assert [report.missing for report in reports] == [(), (), ()]
    assert [report.unexpected for report in reports] == [(), (), ()]
    loaded = {name for report in reports for name in report.loaded}
    assert loaded == {name for name in model.state_dict() if not name.startswith("language_model.")}


def test_missing_and_unknown_names_are_reported(weights: dict[str, Tensor], tmp_path: Path) -> None:
    partial = {"llama_proj.weight": weights["llama_proj.weight"], "llama_proj.scale": torch.ones(1)}
    torch.save({"model": partial}, tmp_path / "partial.pth")
    report = load_original(TINY_VIDEO_LLAMA.model(), tmp_path / "partial.pth")
    assert report.loaded == ("projection.weight",)
    assert report.unexpected == ("llama_proj.scale",)
    assert {"projection.bias", "video_query_tokens", "frame_position_embedding.weight"} < set(report.missing)
    assert not any(
        name.startswith(("qformer.", "vision_model.", "language_model.")) for name in report.missing
    )


def test_a_checkpoint_of_another_size_is_refused_and_nothing_is_loaded(tmp_path: Path) -> None:
    model = TINY_VIDEO_LLAMA.model()
    before = model.projection.bias.clone()
    torch.save({"model": original.random_weights(width=16, width_mlp=32)}, tmp_path / "other.pth")
    with pytest.raises(StateMismatch, match=r"\(1, 4, 16\) in other.pth, \(1, 4, 24\) here"):
        load_original(model, tmp_path / "other.pth")
    assert torch.equal(model.projection.bias, before)


class Runs:
    """Something that a pickle would call."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return print, ("run",)


@pytest.mark.parametrize("content", [{"model": Runs()}, {"model": {"a": 1}}, [1, 2]])
def test_a_file_that_is_no_checkpoint_is_refused(content: object, tmp_path: Path, capsys) -> None:
    torch.save(content, tmp_path / "odd.pth")
    with pytest.raises(
        StateMismatch, match=r"odd\.pth (is no checkpoint of plain tensors|holds no named tensors)"
    ):
        load_original(TINY_VIDEO_LLAMA.model(), tmp_path / "odd.pth")
    assert capsys.readouterr().out == ""


def test_placeholders_that_do_not_fit_the_video_are_an_error() -> None:
    model = TINY_VIDEO_LLAMA.model()
    ids = torch.tensor([[5] + [VIDEO_TOKEN] * 5, [5] + [VIDEO_TOKEN] * 5])
    with pytest.raises(ValueError, match=r"\[5, 5\] video placeholders, every video has 6 tokens"):
        model(input_ids=ids, pixel_values_videos=videos())


def test_the_model_saves_and_loads_as_any_of_transformers(tmp_path: Path) -> None:
    model = TINY_VIDEO_LLAMA.model()
    model.save_pretrained(tmp_path)
    again = VideoLlamaForConditionalGeneration.from_pretrained(tmp_path).eval()
    assert again.config.video_qformer_config.cross_attention_frequency == 1
    assert video_llama_config().num_video_query_tokens == again.config.num_video_query_tokens
    inputs = TINY_VIDEO_LLAMA.inputs(TINY_VIDEO_LLAMA.videos(1))
    with torch.no_grad():
        assert torch.equal(model(**inputs).logits, again(**inputs).logits)
