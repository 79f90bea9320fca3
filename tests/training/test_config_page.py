"""docs/training.md says what the config's classes say."""

from __future__ import annotations

from pathlib import Path

from training import signatures
from training.trainer.config import TrainConfig
from training.trainer.config_page import keys, page

PAGE = Path(__file__).parents[2] / "docs" / "training.md"


def test_the_page_is_what_the_classes_say() -> None:
    assert PAGE.read_text() == page(), "run: python -m training.trainer.config_page > docs/training.md"


def test_every_key_is_described() -> None:
    assert [key for key, _, what in keys(TrainConfig) if not what] == []


def test_every_signature_is_on_the_page() -> None:
    codes = [line.split()[0] for line in signatures.__doc__.splitlines()[2:] if line.strip()]
    assert len(codes) == 5
    assert all(f"`{code}`" in page() for code in codes)
