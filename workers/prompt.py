"""Frames and words in, what the model reads out. The stock VideoLLaMA3 processor does all of it."""

from dataclasses import dataclass

import numpy as np
import torch
from transformers import VideoLlama3Processor
from transformers.video_utils import VideoMetadata

from contract.errors import Code, JobFailure
from model_store.manifest import BackboneManifest
from workers.decode import DecodedVideo
from workers.frame_plan import FramePlan


@dataclass(frozen=True, eq=False)
class Prompt:
    """One request as the model reads it, on the CPU.

    input_ids (T,) with one placeholder per video token; pixel_values (N, C·p·p), one row per patch;
    grid_thw (1, 3) patches in time, height and width; merge_sizes (1,); compression_mask (N / merge²,) says
    which merged patches became video tokens.
    """

    input_ids: torch.Tensor
    pixel_values: torch.Tensor
    grid_thw: torch.Tensor
    merge_sizes: torch.Tensor
    compression_mask: torch.Tensor
    video_tokens: int

    @property
    def tokens(self) -> int:
        """T, the length of the prompt with its video tokens."""
        return int(self.input_ids.shape[0])

    @property
    def patches(self) -> int:
        """N, the rows of the vision tower's input."""
        return int(self.pixel_values.shape[0])


class PromptBuilder:
    """Makes prompts for one backbone."""

    def __init__(self, processor: VideoLlama3Processor, manifest: BackboneManifest) -> None:
        self._processor = processor
        self._manifest = manifest

    def frame_plan(self) -> FramePlan:
        """The frames that this backbone wants of a video."""
        video = self._processor.video_processor
        return FramePlan(
            fps=self._manifest.fps,
            min_frames=self._manifest.min_frames,
            max_frames=self._manifest.max_frames,
            size_multiple=video.patch_size * video.merge_size,
            min_pixels=video.size["shortest_edge"],
            max_pixels=video.size["longest_edge"],
            frame_pixels=self._manifest.frame_pixels,
        )

    @property
    def preprocessor(self) -> str:
        """How frames were made, for a result's receipt."""
        plan = self.frame_plan()
        size = f"{plan.frame_pixels} px a frame" if plan.frame_pixels else f"{plan.max_pixels} px a video"
        kind = type(self._processor.video_processor).__name__
        return f"{kind}; {plan.fps:g} fps, {plan.min_frames} to {plan.max_frames} frames, area-scaled, {size}"

    def build(self, video: DecodedVideo, instructions: str | None) -> Prompt:
        """The prompt for these frames (T, H, W, 3), already of the size that the model wants.

        Raises:
            JobFailure: model.no_evidence if no video token would reach the model.
        """
        words = self._plain(instructions) if instructions else self._manifest.prompt
        content = [{"type": "video"}, {"type": "text", "text": words}]
        text = self._processor.apply_chat_template(
            [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False
        )
        if self._processor.video_token not in text:
            raise JobFailure(Code.MODEL_NO_EVIDENCE, "The backbone's prompt has no place for the video.")
        inputs = self._processor(
            text=[text],
            videos=[
                torch.from_numpy(np.ascontiguousarray(video.frames.transpose(0, 3, 1, 2)))
            ],  # (T, 3, H, W)
            video_metadata=[_metadata(video)],
            do_resize=False,
            do_sample_frames=False,
            return_tensors="pt",
        )
        input_ids = inputs["input_ids"][0]
        video_tokens = int((input_ids == self._processor.video_token_id).sum())
        if video_tokens == 0:
            raise JobFailure(Code.MODEL_NO_EVIDENCE, "No part of the video would have reached the model.")
        return Prompt(
            input_ids=input_ids,
            pixel_values=inputs["pixel_values_videos"],
            grid_thw=inputs["video_grid_thw"],
            merge_sizes=inputs["video_merge_sizes"],
            compression_mask=inputs["video_compression_mask"],
            video_tokens=video_tokens,
        )

    def _plain(self, instructions: str) -> str:
        """A user's words without the tokens that mean something to the model: they end turns and place videos."""
        tokenizer = self._processor.tokenizer
        reserved = {*tokenizer.all_special_tokens, *tokenizer.get_added_vocab()}
        for token in sorted(reserved, key=len, reverse=True):
            instructions = instructions.replace(token, " ")
        return instructions


def _metadata(video: DecodedVideo) -> VideoMetadata:
    """The processor writes `index / fps` as each frame's time; with one index a second that is the true time."""
    return VideoMetadata(
        total_num_frames=len(video.frames),
        fps=1.0,
        width=video.width,
        height=video.height,
        duration=video.duration_s,
        frames_indices=list(video.timestamps_s),
    )
