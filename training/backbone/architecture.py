"""The demo backbone's shape: a ``video_llama_3`` of about 4.3 million parameters, and its stock processor."""

from transformers import (
    GenerationConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
    VideoLlama3Config,
    VideoLlama3ForConditionalGeneration,
    VideoLlama3ImageProcessor,
    VideoLlama3Processor,
    VideoLlama3VideoProcessor,
)
from transformers.models.video_llama_3 import VideoLlama3VisionConfig

from training.backbone.sampling import FRAME_PIXELS, MAX_FRAMES, MERGE, MIN_FRAMES, PATCH
from training.backbone.tokenizer import CHAT_TEMPLATE, END_OF_TEXT, IMAGE_PAD, TURN_END, VIDEO_PAD

ROPE = {"rope_type": "default", "rope_theta": 10000.0}


def build_config(tokenizer: PreTrainedTokenizerFast, vocabulary: int) -> VideoLlama3Config:
    """The architecture for a tokenizer; ``vocabulary`` rows of embedding, some of which may stay unused."""
    vision = VideoLlama3VisionConfig(
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=4,
        num_attention_heads=4,
        patch_size=PATCH,
    )
    text = Qwen2Config(
        vocab_size=vocabulary,
        hidden_size=256,
        intermediate_size=704,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        rope_parameters=dict(ROPE),
        bos_token_id=None,
        eos_token_id=tokenizer.convert_tokens_to_ids(TURN_END),
        pad_token_id=tokenizer.convert_tokens_to_ids(END_OF_TEXT),
    )
    return VideoLlama3Config(
        text_config=text,
        vision_config=vision,
        image_token_id=tokenizer.convert_tokens_to_ids(IMAGE_PAD),
        video_token_id=tokenizer.convert_tokens_to_ids(VIDEO_PAD),
        tie_word_embeddings=True,
    )


def build_model(config: VideoLlama3Config) -> VideoLlama3ForConditionalGeneration:
    """A randomly initialized model in fp32; seed torch before the call."""
    model = VideoLlama3ForConditionalGeneration(config)
    model.generation_config = GenerationConfig(
        eos_token_id=config.text_config.eos_token_id,
        pad_token_id=config.text_config.pad_token_id,
        do_sample=False,
        max_new_tokens=160,
    )
    return model


def build_processor(tokenizer: PreTrainedTokenizerFast) -> VideoLlama3Processor:
    """The stock processor, told about small frames and patches. Frames of 12 tokens need no token compression."""
    size = {"shortest_edge": FRAME_PIXELS, "longest_edge": FRAME_PIXELS * MAX_FRAMES}
    video = VideoLlama3VideoProcessor(
        size=size,
        patch_size=PATCH,
        merge_size=MERGE,
        min_frames=MIN_FRAMES,
        max_frames=MAX_FRAMES,
        use_token_compression=False,
        do_sample_frames=False,
    )
    image = VideoLlama3ImageProcessor(size=dict(size), patch_size=PATCH, merge_size=MERGE)
    return VideoLlama3Processor(
        image_processor=image, tokenizer=tokenizer, video_processor=video, chat_template=CHAT_TEMPLATE
    )
