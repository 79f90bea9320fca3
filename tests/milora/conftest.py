"""A tiny random video model, and adapters that are anything but neutral."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from tests.tiny_backbone import tiny_model


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def model() -> torch.nn.Module:
    """A fresh random video_llama_3 in float32."""
    return tiny_model()
