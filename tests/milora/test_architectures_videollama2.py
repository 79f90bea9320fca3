"""VideoLLaMA2: the STC connector by its paper, the tower's selected layer, the released names."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import CLIPVisionModel

from milora.architectures.modeling_videollama2 import RELEASED_NAMES, VideoLlama2ForConditionalGeneration
from milora.architectures.stc_connector import STCConnector
from tests.milora.tiny_architectures import TINY

VIDEOLLAMA2 = next(tiny for tiny in TINY if tiny.model_type == "videollama2")


def reading_of_the_paper(w: Mapping[str, Tensor], patches: Tensor, padding: int) -> Tensor:
    """The connector of arXiv 2406.07476 frame by frame, from tensors by their released names: (T, h·w, D) → (n, H)."""
    side = round(patches.shape[1] ** 0.5)
    frames = [_stage(w, "s1", frame.T.view(1, -1, side, side)) for frame in patches]  # (1, H, h, w) each
    volume = torch.stack(frames, 2)  # (1, H, T, h, w)
    volume = F.conv3d(volume, w["sampler.0.weight"], w["sampler.0.bias"], stride=2, padding=padding)
    volume = F.silu(volume)
    rows = [
        _stage(w, "s2", volume[:, :, t])[0].flatten(1).T for t in range(volume.shape[2])
    ]  # (h'·w', H) each
    hidden = F.gelu(F.linear(torch.cat(rows), w["readout.0.weight"], w["readout.0.bias"]))
    return F.linear(hidden, w["readout.2.weight"], w["readout.2.bias"])


def _stage(w: Mapping[str, Tensor], name: str, x: Tensor) -> Tensor:
    """A RegNet stage: every block a 1×1, depthwise 3×3, squeeze-excitation and 1×1 beside a shortcut."""
    i = 1
    while f"{name}.b{i}.conv1.conv.weight" in w:
        block = f"{name}.b{i}"
        y = F.silu(_conv_norm(w, f"{block}.conv1", x))
        y = F.silu(_conv_norm(w, f"{block}.conv2", y, groups=y.shape[1], padding=1))
        squeezed = F.silu(
            F.conv2d(y.mean((2, 3), True), w[f"{block}.se.fc1.weight"], w[f"{block}.se.fc1.bias"])
        )
        y = y * torch.sigmoid(F.conv2d(squeezed, w[f"{block}.se.fc2.weight"], w[f"{block}.se.fc2.bias"]))
        y = _conv_norm(w, f"{block}.conv3", y)
        shortcut = f"{block}.downsample"
        x = F.silu(y + (_conv_norm(w, shortcut, x) if f"{shortcut}.conv.weight" in w else x))
        i += 1
    return x


def _conv_norm(w: Mapping[str, Tensor], name: str, x: Tensor, **geometry: int) -> Tensor:
    y = F.conv2d(x, w[f"{name}.conv.weight"], **geometry)
    mean, variance = y.mean(1, keepdim=True), y.var(1, keepdim=True, correction=0)
    y = (y - mean) / torch.sqrt(variance + 1e-5)
    return y * w[f"{name}.bn.weight"].view(1, -1, 1, 1) + w[f"{name}.bn.bias"].view(1, -1, 1, 1)


def connector(padding: int) -> STCConnector:
    torch.manual_seed(0)
    made = STCConnector(24, 32, depth=2, padding=padding)
    for parameter in made.parameters():
        nn.init.normal_(parameter, std=0.3)
    return made


@pytest.mark.parametrize(("padding", "tokens"), [(1, 4 * 3 * 3), (0, 3 * 2 * 2)])
def test_the_connector_equals_an_independent_reading_of_the_paper(padding: int, tokens: int) -> None:
    made = connector(padding)
    patches = torch.randn(2, 6, 16, 24, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        found = made(patches)
        expected = [reading_of_the_paper(made.state_dict(), video, padding) for video in patches]
    assert found.shape == (2, tokens, 32)
    torch.testing.assert_close(found, torch.stack(expected), rtol=1e-4, atol=1e-5)


def test_the_shortcut_is_a_convolution_only_where_channels_change() -> None:
    names = set(connector(1).state_dict())
    assert "s1.b1.downsample.conv.weight" in names
    assert not any(name.startswith(("s1.b2.downsample", "s2.b1.downsample")) for name in names)


def test_the_connector_reads_the_towers_layer_before_the_last() -> None:
    model = VIDEOLLAMA2.model()
    whole = CLIPVisionModel._from_config(model.config.vision_config).eval()
    assert len(whole.encoder.layers) == len(model.vision_tower.encoder.layers) + 1
    whole.load_state_dict(model.vision_tower.state_dict(), strict=False)
    videos = torch.randn(2, 4, 3, 16, 16, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        layers = whole(videos.flatten(0, 1), output_hidden_states=True).hidden_states
        expected = model.connector(layers[-2][:, 1:].unflatten(0, (2, 4)))
        found = model.video_tokens(videos)
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


def test_weights_by_their_released_names_load(tmp_path: Path) -> None:
    model = VIDEOLLAMA2.model()
    model.save_pretrained(tmp_path)
    ours = load_file(tmp_path / "model.safetensors")
    released = {
        name.replace("vision_tower.", "model.vision_tower.vision_tower.vision_model.", 1)
        .replace("connector.", "model.mm_projector.", 1)
        .replace("language_model.", "", 1): tensor
        for name, tensor in ours.items()
    }
    assert {"lm_head.weight", "model.embed_tokens.weight", "model.mm_projector.s1.b1.conv1.bn.bias"} < set(
        released
    )
    save_file(released, tmp_path / "model.safetensors", metadata={"format": "pt"})
    again, report = VideoLlama2ForConditionalGeneration.from_pretrained(
        tmp_path, key_mapping=RELEASED_NAMES, output_loading_info=True
    )
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    for name, tensor in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor), name
