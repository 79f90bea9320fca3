"""Every number of the demo backbone's training in one place."""

from dataclasses import dataclass

from training.backbone.tokenizer import DEFAULT_PROMPT

INSTRUCTIONS = (
    DEFAULT_PROMPT,
    "Summarize this video.",
    "Describe the video.",
    "What happens in the video?",
    "Tell what happens in this clip, in order.",
    "Give a short summary of the clip.",
)


@dataclass(frozen=True)
class Recipe:
    """How ``visum-demo`` was made. The defaults are the shipped ones."""

    seed: int = 7
    domain: str = "general"
    vocabulary: int = 2560
    tokenizer_clips: int = 6000
    instructions: tuple[str, ...] = INSTRUCTIONS
    default_instruction_share: float = 0.75

    dense_share: float = 0.09  # of the whole budget
    dense_muon_lr: float = 0.012
    muon_lr: float = 6e-3
    adam_lr: float = 2e-3
    vision_lr_scale: float = 0.3  # in the caption phase
    weight_decay: float = 0.02
    warmup_steps: int = 60
    tokens_per_step: int = 5000  # text positions; decides how many clips a step has
    repeat_every: int = 6  # every so many steps of the caption phase a text-only one is put in
    repeat_sequences: int = 48

    shard_clips: int = 480
    # (clips seen, longest clip in frames): short clips first.
    curriculum: tuple[tuple[int, int], ...] = ((0, 7), (6000, 9), (14000, 16))

    validation_clips: int = 64
    evaluate_every_s: float = 240.0
    checkpoint_every_s: float = 120.0
    log_every_s: float = 10.0
    threads: int = 2
    renderers: int = 1
    compiled: bool = True

    def longest_clip(self, clips_seen: int) -> int:
        """Frames of the longest clip that the curriculum allows once ``clips_seen`` clips were used."""
        return [frames for start, frames in self.curriculum if clips_seen >= start][-1]

    def clips_per_step(self, frames: int) -> int:
        """Clips of ``frames`` frames that make one step: about ``tokens_per_step`` text positions."""
        return max(1, round(self.tokens_per_step / (15 * frames + 70)))
