"""The demo backbone's tokenizer: byte-level BPE of the general world's summaries, the prompts and common words."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from training.backbone.english import WORDS as ENGLISH

END_OF_TEXT = "<|endoftext|>"
TURN_START, TURN_END = "<|im_start|>", "<|im_end|>"
IMAGE_PAD, VIDEO_PAD = "<|image_pad|>", "<|video_pad|>"
SPECIAL_TOKENS = [END_OF_TEXT, TURN_START, TURN_END, IMAGE_PAD, VIDEO_PAD]

DEFAULT_PROMPT = "Summarize the video."

# A frame's time stamp (",Time 3.5s:") splits into exactly three tokens; words keep the space before them.
WORD_PATTERN = r",?Time| ?\p{N}+|\.\p{N}s:| ?\p{L}+| ?[^\s\p{L}\p{N}]+|\s+"

CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{% if message['content'] is string %}{{ message['content'] }}"
    "{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'video' %}{{ '<|video_pad|>\n' }}"
    "{% elif part['type'] == 'image' %}{{ '<|image_pad|>\n' }}"
    "{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}{{ '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def time_stamps(times_s: Iterable[float], tokens_per_frame: int) -> str:
    """The text that the stock processor puts in place of a video."""
    return ",".join(f"Time {time:.1f}s:" + VIDEO_PAD * tokens_per_frame for time in times_s)


def prompt_text(times_s: Sequence[float], tokens_per_frame: int, instruction: str = DEFAULT_PROMPT) -> str:
    """The prompt as chat template and stock processor write it for one video and one instruction."""
    video = time_stamps(times_s, tokens_per_frame)
    return f"{TURN_START}user\n{video}\n{instruction}{TURN_END}\n{TURN_START}assistant\n"


def learn_tokenizer(
    texts: Iterable[str], instructions: Sequence[str], vocabulary: int
) -> PreTrainedTokenizerFast:
    """Learn at most ``vocabulary`` tokens. All 256 bytes are tokens, so any text can be read and written."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORD_PATTERN), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=SPECIAL_TOKENS,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator([*texts, *_other_lines(instructions)], trainer)
    return wrap_tokenizer(tokenizer)


def wrap_tokenizer(tokenizer: Tokenizer) -> PreTrainedTokenizerFast:
    """Give a raw tokenizer the names of its special tokens and the chat template."""
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=TURN_END,
        pad_token=END_OF_TEXT,
        extra_special_tokens={"image_token": IMAGE_PAD, "video_token": VIDEO_PAD},
        additional_special_tokens=[TURN_START],
        chat_template=CHAT_TEMPLATE,
        padding_side="left",
        clean_up_tokenization_spaces=False,
        model_max_length=2048,
    )


def load_tokenizer(path: Path) -> PreTrainedTokenizerFast:
    """Read the ``tokenizer.json`` that an earlier part of the same run left."""
    return wrap_tokenizer(Tokenizer.from_file(str(path)))


def _other_lines(instructions: Sequence[str]) -> list[str]:
    """Prompts, often enough that each of their words becomes one token, and common words."""
    # Clips end within 16 s as a rule: their seconds are worth a token each.
    stamps = [f",Time {second}.{tenth}s:" for second in range(17) for tenth in range(10)]
    words = ["user\n", "assistant\n", "Time 0.0s:"] * 500 + list(instructions) * 200
    english = [" " + word for word in ENGLISH] * 20
    return stamps * 30 + words + english
