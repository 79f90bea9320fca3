"""A random video_llama_3 of some ten thousand parameters, with the stock processor and a byte tokenizer.

It answers nothing sensible, but it is the real architecture: what loads, swaps, batches and generates with it
does so with VideoLLaMA3 too.
"""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    PreTrainedTokenizerFast,
    VideoLlama3Config,
    VideoLlama3ForConditionalGeneration,
    VideoLlama3ImageProcessor,
    VideoLlama3Processor,
    VideoLlama3VideoProcessor,
)

from model_store.manifest import BACKBONE_FILE, BackboneManifest, manifest_bytes

SPECIAL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|image_pad|>", "<|video_pad|>")
BYTES = 256
PATCH_SIZE = 4
MERGE_SIZE = 2
FRAME_PIXELS = 32 * 32

CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'video' %}<|video_pad|>\n{% elif part['type'] == 'image' %}<|image_pad|>\n"
    "{% else %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """One token per byte and the special tokens of a video prompt."""
    vocabulary = {letter: index for index, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(list(SPECIAL_TOKENS))
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>", padding_side="left"
    )


def tiny_processor() -> VideoLlama3Processor:
    """The stock processor over the byte tokenizer; frames are cut into patches of 4 pixels, merged 2 by 2."""
    sizes = {"patch_size": PATCH_SIZE, "size": {"shortest_edge": 64, "longest_edge": 2**20}}
    return VideoLlama3Processor(
        image_processor=VideoLlama3ImageProcessor(merge_size=1, **sizes),
        tokenizer=tiny_tokenizer(),
        video_processor=VideoLlama3VideoProcessor(
            merge_size=MERGE_SIZE, use_token_compression=False, do_sample_frames=False, **sizes
        ),
        chat_template=CHAT_TEMPLATE,
    )


def tiny_config(*, tied: bool = True) -> VideoLlama3Config:
    """Two layers each of vision and language, with grouped key-value heads as in the real one."""
    return VideoLlama3Config(
        text_config={
            "model_type": "qwen2",
            "vocab_size": BYTES + len(SPECIAL_TOKENS),
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 4096,
            "tie_word_embeddings": tied,
            "pad_token_id": BYTES,
            "bos_token_id": BYTES,
            "eos_token_id": BYTES + SPECIAL_TOKENS.index("<|im_end|>"),
        },
        vision_config={
            "hidden_size": 32,
            "intermediate_size": 40,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "patch_size": PATCH_SIZE,
        },
        image_token_id=BYTES + SPECIAL_TOKENS.index("<|image_pad|>"),
        video_token_id=BYTES + SPECIAL_TOKENS.index("<|video_pad|>"),
        tie_word_embeddings=tied,
    )


def tiny_model(*, seed: int = 0, tied: bool = True) -> VideoLlama3ForConditionalGeneration:
    """The model with random fp32 weights, larger than the default ones so that logits differ clearly."""
    torch.manual_seed(seed)
    model = VideoLlama3ForConditionalGeneration(tiny_config(tied=tied))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.2)
    return model.eval().requires_grad_(False)


def write_tiny_backbone(
    folder: Path,
    *,
    seed: int = 0,
    tied: bool = True,
    dtype: torch.dtype = torch.float32,
    max_shard_size: str = "1GB",
    manifest: bool = True,
) -> Path:
    """Write model and processor as a stock checkpoint folder, with `visum.json` unless told otherwise."""
    tiny_model(seed=seed, tied=tied).to(dtype).save_pretrained(folder, max_shard_size=max_shard_size)
    tiny_processor().save_pretrained(folder)
    if manifest:
        facts = BackboneManifest(
            name="tiny",
            frame_pixels=FRAME_PIXELS,
            max_frames=8,
            max_new_tokens=16,
            notice="random weights for tests",
        )
        (folder / BACKBONE_FILE).write_bytes(manifest_bytes(facts))
    return folder
