"""What the models of ours share: a language model that reads a video's tokens at the placeholders of its prompt."""

from __future__ import annotations

from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.cache_utils import Cache
from transformers.generation import GenerationMixin
from transformers.modeling_outputs import CausalLMOutputWithPast


class VideoLanguageModel(PreTrainedModel, GenerationMixin):
    """A subclass has a `language_model` and says what it sees of a video; its config has a `video_token_id`."""

    input_modalities = ("video", "text")
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    language_model: PreTrainedModel

    def get_input_embeddings(self) -> nn.Module:
        """The language model's token embeddings."""
        return self.language_model.get_input_embeddings()

    def get_output_embeddings(self) -> nn.Module:
        """The language model's head."""
        return self.language_model.get_output_embeddings()

    def video_tokens(self, pixel_values_videos: Tensor) -> Tensor:
        """What the language model sees of every video: (V, T, 3, H, W) → (V, n, H_text)."""
        raise NotImplementedError

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        cache: Cache | None = None,
        inputs_embeds: Tensor | None = None,
        pixel_values_videos: Tensor | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        **kwargs: object,
    ) -> CausalLMOutputWithPast:
        """Logits (V, L, vocabulary) after ids (V, L) with a placeholder for every token of the video.

        Raises:
            ValueError: the placeholders are not as many as the video's tokens.
        """
        if inputs_embeds is None:
            inputs_embeds = self.get_input_embeddings()(input_ids)
        if pixel_values_videos is not None:
            place = input_ids == self.config.video_token_id
            inputs_embeds = with_video(inputs_embeds, place, self.video_tokens(pixel_values_videos))
        return self.language_model(
            inputs_embeds=inputs_embeds,
            attention_mask=attention_mask,
            position_ids=position_ids,
            cache=cache,
            labels=labels,
            use_cache=use_cache,
            logits_to_keep=logits_to_keep,
            **kwargs,
        )


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
