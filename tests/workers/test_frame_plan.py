"""Which frames are taken and how large they are."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import VideoLlama3VideoProcessor
from transformers.models.video_llama_3.video_processing_video_llama_3 import smart_resize
from transformers.video_utils import VideoMetadata

from workers.frame_plan import FramePlan, fit_pixels


@pytest.mark.parametrize(("seconds", "fps"), [(12, 24), (3, 30), (0.25, 24), (200, 25), (8, 10)])
def test_frames_are_sampled_as_the_stock_processor_does(seconds: float, fps: int) -> None:
    total = round(seconds * fps)
    stock = VideoLlama3VideoProcessor(min_frames=4, max_frames=16)
    metadata = VideoMetadata(total_num_frames=total, fps=float(fps))
    expected = stock.sample_frames(metadata, fps=1).tolist()
    assert FramePlan(max_frames=16).indices(total, Fraction(total, fps)) == expected


@given(total=st.integers(1, 10_000), seconds=st.floats(0.01, 10_000))
def test_indices_ascend_within_the_video(total: int, seconds: float) -> None:
    indices = FramePlan(max_frames=16).indices(total, seconds)
    assert indices[0] == 0
    assert indices[-1] < total
    assert all(a < b for a, b in pairwise(indices))
    assert len(indices) <= 16


@given(height=st.integers(20, 3000), width=st.integers(20, 3000))
def test_sizes_are_the_stock_processors(height: int, width: int) -> None:
    expected = smart_resize(height, width, factor=28, min_pixels=56 * 56, max_pixels=28 * 28 * 1280)
    assert fit_pixels(height, width, 28, 56 * 56, 28 * 28 * 1280) == expected


def test_the_demo_takes_a_frame_down_to_its_pixels() -> None:
    assert FramePlan(size_multiple=16, frame_pixels=64 * 48).frame_size(240, 320, 8) == (48, 64)


def test_a_picture_like_a_thread_is_refused() -> None:
    with pytest.raises(ValueError, match="too narrow"):
        fit_pixels(2, 4000, 28, 3136, 10**6)
