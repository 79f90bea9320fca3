"""The STC connector of VideoLLaMA2 (arXiv 2406.07476, figure 2): space, then time and space, then space.

    RegStage over every frame → 3-D convolution that halves T, H and W → RegStage → MLP of two layers

A RegStage is RegNet's stage (arXiv 2003.13678) with layer norms over channels; parameters are named as in the
released `mm_projector.bin`.
"""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn
from torch.nn import functional as F

SE_RATIO = 0.25


class _ConvNorm(nn.Module):
    """Convolution that keeps height and width, layer norm over channels, SiLU unless told otherwise."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int = 1, groups: int = 1, *, act: bool = True
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, groups=groups, bias=False)
        self.bn = nn.LayerNorm(outputs)  # its name in the released weights
        self.act = act

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, h, w) → (N, outputs, h, w)."""
        x = self.bn(self.conv(x).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return F.silu(x) if self.act else x


class _SqueezeExcite(nn.Module):
    """Every channel weighed by what the whole frame holds (arXiv 1709.01507)."""

    def __init__(self, channels: int, squeezed: int) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(channels, squeezed, 1)
        self.fc2 = nn.Conv2d(squeezed, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, h, w) → the same."""
        return x * self.fc2(F.silu(self.fc1(x.mean((2, 3), keepdim=True)))).sigmoid()


class _Bottleneck(nn.Module):
    """1×1, depthwise 3×3, squeeze and excitation, 1×1, beside a shortcut."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv1 = _ConvNorm(inputs, outputs)
        self.conv2 = _ConvNorm(outputs, outputs, 3, groups=outputs)
        self.se = _SqueezeExcite(outputs, round(inputs * SE_RATIO))
        self.conv3 = _ConvNorm(outputs, outputs, act=False)
        self.downsample = (
            _ConvNorm(inputs, outputs, act=False) if inputs != outputs else nn.Identity()
        )  # the shortcut

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, h, w) → (N, outputs, h, w)."""
        return F.silu(self.conv3(self.se(self.conv2(self.conv1(x)))) + self.downsample(x))


def _stage(depth: int, inputs: int, outputs: int) -> nn.Sequential:
    blocks = {f"b{i + 1}": _Bottleneck(outputs if i else inputs, outputs) for i in range(depth)}
    return nn.Sequential(OrderedDict(blocks))


class STCConnector(nn.Module):
    """Frames' patches to the language model's tokens.

    Args:
        inputs: channels D of the vision tower.
        outputs: hidden size H of the language model.
        depth: blocks of each RegStage.
        padding: of the 3-D convolution, 1 in VideoLLaMA2 and 0 in VideoLLaMA2.1 ("v35").
    """

    def __init__(self, inputs: int, outputs: int, *, depth: int = 4, padding: int = 1) -> None:
        super().__init__()
        self.s1 = _stage(depth, inputs, outputs)
        convolution = nn.Conv3d(outputs, outputs, kernel_size=2, stride=2, padding=padding)
        self.sampler = nn.Sequential(convolution, nn.SiLU())
        self.s2 = _stage(depth, outputs, outputs)
        self.readout = nn.Sequential(nn.Linear(outputs, outputs), nn.GELU(), nn.Linear(outputs, outputs))

    def forward(self, patches: Tensor) -> Tensor:
        """(V, T, h·w, D), frames square → (V, T'·h'·w', H), each of T', h', w' half and, padded, one more."""
        videos, frames, count, channels = patches.shape
        side = round(count**0.5)
        x = patches.reshape(videos * frames, side, side, channels).permute(0, 3, 1, 2)  # (V·T, D, h, w)
        x = self.s1(x).unflatten(0, (videos, frames)).transpose(1, 2)  # (V, H, T, h, w)
        x = self.sampler(x)  # (V, H, T', h', w')
        fewer = x.shape[2]
        x = self.s2(x.transpose(1, 2).flatten(0, 1))  # (V·T', H, h', w')
        x = x.unflatten(0, (videos, fewer)).permute(0, 1, 3, 4, 2)  # (V, T', h', w', H)
        return self.readout(x.flatten(1, 3))
