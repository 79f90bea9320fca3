"""The gate of one layer: which experts speak, for one video.

    g(v) = softmax( (G z(v) + b) / τ ),   z(v) = mean of the layer's input over the video's own rows

z is taken over all of the video's patches in the vision tower and over its prompt tokens, never padding and
never the answer, in the language model, so that a gate is a function of video and prompt alone and is
computed once before the first new token (as in MiLoRA, arXiv 2410.18035). b comes from standardizing z while
training: the standardization is folded into G and b on export (`folded`), so the served gate is affine in z.
A group with ``top_k`` takes the softmax over the k largest logits of a layer only.
"""

from __future__ import annotations

import torch
from torch import Tensor

from milora.routing import Layout


def pool(rows: Tensor, layout: Layout) -> Tensor:
    """Mean of each video's own rows: (N, in) → (V, in), in float32 whatever the rows are."""
    if layout.per_video is None:
        return torch.stack([part.mean(0, dtype=torch.float32) for part in rows.split(layout.lengths)])
    by_video = rows.view(layout.videos, layout.per_video, -1)  # (V, n, in)
    if layout.pool_weights is None:
        return by_video.mean(1, dtype=torch.float32)
    return torch.bmm(layout.pool_weights, by_video.float()).squeeze(1)


def top_k(logits: Tensor, k: Tensor) -> Tensor:
    """Logits (V, K) with −inf for all but every video's k (V,) largest: a softmax weighs the rest exactly zero.

    Of equal logits the first experts' are kept.
    """
    places = logits.argsort(dim=-1, descending=True, stable=True).argsort(-1)  # (V, K), 0 for the largest
    return logits.masked_fill(places >= k.unsqueeze(-1), -torch.inf)


def logits_by_slot(z: Tensor, G: Tensor, b: Tensor, slot_index: Tensor) -> Tensor:
    """G z + b with every video's own block: z (V, in), G (S, K, in), b (S, K), slot_index (V,) → (V, K)."""
    return torch.baddbmm(b[slot_index].unsqueeze(-1), G[slot_index], z.unsqueeze(-1)).squeeze(-1)


def folded(G: Tensor, b: Tensor, mean: Tensor, inverse_std: Tensor) -> tuple[Tensor, Tensor]:
    """The gate G·(z − m)/s + b written as one that is affine in z itself: (G/s, b − G·m/s)."""
    scaled = G.double() * inverse_std.double()
    return scaled.float(), (b.double() - scaled @ mean.double()).float()
