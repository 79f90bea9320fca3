"""The hand-written pass of backbones of demo size: the stock model's numbers in half the time, on the CPU."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from model_store.backbone import Backbone
from training.backbone.batches import Batch, collate
from training.backbone.decoding import greedy
from training.backbone.design import VIDEO_LLAMA_3, Design, design_of
from training.backbone.forward import LanguageForward
from training.backbone.pixels import disturb, normalize
from training.backbone.rendering import Sample
from training.backbone.sampling import FRAME_HEIGHT, FRAME_PIXELS, FRAME_WIDTH, PATCH
from training.backbone.tokenizer import TURN_END
from training.experts.forward import adapted_forward
from training.trainer.method import Method
from training.trainer.passes import Pair, Rows
from training.trainer.samples import VideoSample


class FastReader:
    """Pairs of one frame count and one instruction as tensors."""

    def __init__(self, tokenizer, design: Design) -> None:
        self._tokenizer, self._design = tokenizer, design

    def __call__(self, pairs: Sequence[Pair]) -> Batch:
        """
        Raises:
            ValueError: pairs of several frame counts or instructions.
        """
        if len({pair.instruction for pair in pairs}) != 1:
            raise ValueError("the fast pass takes one instruction a batch; train with forward = 'stock'")
        samples = [Sample(0, pair.frames, list(pair.times_s), pair.answer, None) for pair in pairs]
        return collate(samples, self._tokenizer, pairs[0].instruction, self._design)


class FastPass:
    """The pass over a model of one of the designs, with the demo's frame, patch and merge sizes."""

    equal_frames = True

    def __init__(self, model: nn.Module, tokenizer, *, forward: LanguageForward | None = None) -> None:
        self.forward = forward or adapted_forward(model)
        self.design = design_of(model)
        self.read = FastReader(tokenizer, self.design)
        self._tokenizer = tokenizer

    def positions(self, frames: int) -> int:
        return self.design.video_positions(frames) + 70

    def clips(self, batch: Batch) -> int:
        return batch.clips

    def rows(self, batch: Batch) -> Rows:
        """Gates pool over patches in the tower, over the prompt behind it."""
        positions = batch.prompt.shape[1] + batch.answer.shape[1] - 1
        mask = torch.zeros(batch.clips, positions, dtype=torch.bool)
        mask[:, : batch.prompt.shape[1]] = True
        return {"prompt_mask": mask, **self.forward.rows(batch.frames)}

    def loss(self, batch: Batch, noise: torch.Generator | None) -> Tensor:
        pixels = normalize(batch.frames)
        if noise is not None:
            pixels = disturb(pixels, noise)
        pictures = self.forward.pictures(pixels)
        return self.forward.loss(pictures, batch.prompt, batch.answer, batch.lengths)

    def answers(self, pairs: Sequence[Pair], method: Method, limit: int) -> list[str]:
        by_frames: dict[int, list[int]] = defaultdict(list)
        for index, pair in enumerate(pairs):
            by_frames[len(pair.times_s)].append(index)
        end = self._tokenizer.convert_tokens_to_ids(TURN_END)
        answers = [""] * len(pairs)
        for members in by_frames.values():
            batch = self.read([pairs[index] for index in members])
            rows = {
                "prompt_mask": torch.ones_like(batch.prompt, dtype=torch.bool),
                **self.forward.rows(batch.frames),
            }
            pictures = self.forward.pictures(normalize(batch.frames))
            around = method.decoding(rows)
            ids = greedy(self.forward, pictures, batch.prompt, end=end, limit=limit, around=around)
            for index, text in zip(members, self._tokenizer.batch_decode(ids), strict=True):
                answers[index] = text.strip()
        return answers

    @torch.no_grad()
    def features(self, pair: Pair) -> Tensor:
        pictures = self.forward.pictures(normalize(torch.from_numpy(pair.frames)))
        return self.forward.patch_features(pictures).float().mean((0, 1))


def fits_fast(backbone: Backbone, sample: VideoSample) -> bool:
    """Whether a served backbone and its frames are of the size that the fast pass is written for."""
    vision = getattr(backbone.model.config, "vision_config", None)
    return (
        backbone.device.type == "cpu"
        and backbone.model.config.model_type == VIDEO_LLAMA_3.model_type
        and backbone.manifest.frame_pixels == FRAME_PIXELS
        and vision.patch_size == PATCH
        and sample.frames.shape[1:3] == (FRAME_HEIGHT, FRAME_WIDTH)
    )
