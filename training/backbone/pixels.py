"""From frames to patches, as the stock processor does it, and the disturbances of training."""

import torch
from torch import Tensor

from training.backbone.sampling import MERGE, PATCH, PATCHES_PER_FRAME, TOKEN_COLUMNS, TOKEN_ROWS


def patchify(frames: Tensor) -> Tensor:
    """``(F, 48, 64, 3)`` frames in any float type to ``(F, 48, 192)`` patches, 2x2 blocks together.

    The order of patches and of the values in one is that of ``VideoLlama3VideoProcessor.patchify``.
    """
    blocks = frames.view(-1, TOKEN_ROWS, MERGE, PATCH, TOKEN_COLUMNS, MERGE, PATCH, 3)
    ordered = blocks.permute(0, 1, 4, 2, 5, 7, 3, 6)  # (F, rows, columns, m, m, 3, p, p)
    return ordered.reshape(-1, PATCHES_PER_FRAME, 3 * PATCH * PATCH)


def normalize(frames: Tensor) -> Tensor:
    """``uint8`` frames to floats in -1..1, as ``rescale_factor`` 1/255 with mean and deviation 0.5 give."""
    return frames.float().div_(127.5).sub_(1.0)


def disturb(frames: Tensor, generator: torch.Generator) -> Tensor:
    """Brightness, contrast and grain of every clip differ a little, so that decoded H.264 looks familiar.

    Args:
        frames: ``(B, T, 48, 64, 3)`` in -1..1.
    """
    clips = frames.shape[0]
    gain = 1 + 0.08 * (2 * torch.rand(clips, 1, 1, 1, 1, generator=generator) - 1)
    shift = 0.06 * (2 * torch.rand(clips, 1, 1, 1, 1, generator=generator) - 1)
    grain = 0.025 * torch.rand(clips, 1, 1, 1, 1, generator=generator)
    noise = torch.randn(frames.shape, generator=generator)
    return (frames * gain + shift + grain * noise).clamp_(-1, 1)
