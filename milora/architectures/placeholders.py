"""Where a video's tokens stand in a prompt."""

from __future__ import annotations

from torch import Tensor


def with_video(embeddings: Tensor, place: Tensor, tokens: Tensor) -> Tensor:
    """embeddings (V, L, H) with the tokens (V, n, H) of each video at the n places (V, L) of its prompt.

    Raises:
        ValueError: a prompt has more or fewer places than its video has tokens.
    """
    counts = place.sum(1).tolist()
    if any(count != tokens.shape[1] for count in counts):
        raise ValueError(
            f"the prompts have {counts} video placeholders, every video has {tokens.shape[1]} tokens"
        )
    return embeddings.masked_scatter(place.unsqueeze(-1), tokens.to(embeddings.dtype))
