"""Dense vision pre-training: small heads name what every patch and token shows; afterwards they are dropped.

Without it the language loss alone needs several times as many clips until the tower sees anything.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from training.backbone.dense_labels import COLOUR_INDEX, KIND_INDEX
from training.backbone.forward import LanguageForward


class DenseHeads(nn.Module):
    """Linear heads over patch features (128) and projected tokens (256), each of which tells of so many frames."""

    def __init__(self, patch_size: int, token_size: int, frames_a_token: int = 1) -> None:
        super().__init__()
        self.kinds, self.colours = len(KIND_INDEX) + 1, len(COLOUR_INDEX)
        self.frames_a_token = frames_a_token
        self.patch = nn.Linear(patch_size, self.kinds + self.colours + 1)
        # kind, colour, facing, number of centres (0..3), box (3)
        self.token = nn.Linear(token_size, frames_a_token * (self.kinds + self.colours + 1 + 4 + 3))

    def loss(self, features: Tensor, tokens: Tensor, labels: dict[str, Tensor]) -> Tensor:
        """The summed losses for ``features`` ``(F, 48, 128)`` and ``tokens`` ``(F / f, 12, 256)`` of ``f`` frames."""
        kind, colour, centre = self.patch(features).float().split([self.kinds, self.colours, 1], dim=-1)
        shown = labels["patch_kind"] > 0
        patch = (
            F.cross_entropy(kind.flatten(0, 1), labels["patch_kind"].flatten())
            + 0.5 * F.cross_entropy(colour[shown], labels["patch_colour"][shown])
            + F.binary_cross_entropy_with_logits(centre.squeeze(-1), labels["patch_centre"])
        )
        sizes = [self.kinds, self.colours, 1, 4, 3]
        by_frame = (
            self.token(tokens).float().unflatten(-1, (self.frames_a_token, -1))
        )  # (F / f, 12, f, sizes)
        kind, colour, left, centres, box = by_frame.transpose(1, 2).flatten(0, 1).split(sizes, dim=-1)
        shown = labels["token_kind"] > 0
        token = (
            F.cross_entropy(kind.flatten(0, 1), labels["token_kind"].flatten())
            + 0.5 * F.cross_entropy(colour[shown], labels["token_colour"][shown])
            + 0.5 * F.binary_cross_entropy_with_logits(left.squeeze(-1)[shown], labels["token_left"][shown])
            + F.cross_entropy(centres.flatten(0, 1), labels["token_centres"].flatten())
            + F.smooth_l1_loss(box[shown], labels["token_box"][shown])
        )
        return patch + token


def dense_loss(
    fast: LanguageForward, heads: DenseHeads, pictures: Tensor, labels: dict[str, Tensor]
) -> Tensor:
    """The heads' summed loss on what the tower takes and the labels of its frames."""
    return heads.loss(*fast.cells(pictures), labels)
